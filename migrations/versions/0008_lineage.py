"""The lineage of checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "lineage",
        sa.Column("namespace", _Text, nullable=False),
        sa.Column("name", _Text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("relation", _Text, nullable=False),
        sa.Column("parent_namespace", _Text, nullable=False),
        sa.Column("parent_name", _Text, nullable=False),
        sa.Column("parent_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", "version", "relation", name="pk_lineage"),
        sa.CheckConstraint("relation IN ('parent', 'warm_started_from')", name=op.f("ck_lineage_relation")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_lineage_parent_namespace_parent_name_parent_version",
        "lineage",
        ["parent_namespace", "parent_name", "parent_version"],
    )


def downgrade() -> None:
    op.drop_table("lineage")
