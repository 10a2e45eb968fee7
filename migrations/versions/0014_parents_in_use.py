"""The parents that running uploads name: retention keeps them."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_NAMED = sa.text("parent IS NOT NULL")


def upgrade() -> None:
    op.add_column("packs", sa.Column("parent", sa.Text()))
    op.create_index("ix_packs_parent", "packs", ["parent"], sqlite_where=_NAMED, postgresql_where=_NAMED)
    op.add_column("uploads", sa.Column("parent", sa.Text()))


def downgrade() -> None:
    op.drop_column("uploads", "parent")
    op.drop_index("ix_packs_parent", "packs")
    op.drop_column("packs", "parent")
