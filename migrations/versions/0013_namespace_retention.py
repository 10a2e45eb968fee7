"""Rules of retention that hold for all models of a namespace without rules of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("namespaces", sa.Column("retention", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    op.drop_column("namespaces", "retention")
