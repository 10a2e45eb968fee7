"""Events: the record of all changes."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", _Id, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", _Text, nullable=False),
        sa.Column("namespace", _Text),
        sa.Column("name", _Text),
        sa.Column("version", sa.BigInteger()),
        sa.Column("alias", _Text),
        sa.Column("by", _Text),
        sa.Column("address", _Text),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_namespace_name_id", "events", ["namespace", "name", "id"])
    op.create_index("ix_events_namespace_id", "events", ["namespace", "id"])


def downgrade() -> None:
    op.drop_table("events")
