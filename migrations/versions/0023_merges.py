"""Checkpoints that were computed from others: how, and an edge of the lineage for each source.

Going back forgets how merges were made; the merges stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0020"

_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NAMES = "namespace, name, version, relation, parent_namespace, parent_name, parent_version"


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("merge", sa.JSON()))
    _make_anew(
        "('parent', 'warm_started_from', 'merged_from')",
        ("namespace", "name", "version", "relation", "position"),
        sa.Column("position", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("weight", sa.Double()),
    )


def downgrade() -> None:
    op.execute("DELETE FROM lineage WHERE relation = 'merged_from'")
    _make_anew("('parent', 'warm_started_from')", ("namespace", "name", "version", "relation"))
    op.drop_column("checkpoints", "merge")


def _make_anew(relations: str, key: tuple[str, ...], *columns: sa.Column[object]) -> None:
    """Copy the edges to a table with another key: SQLite cannot change the one that it has."""
    op.drop_index("ix_lineage_parent_namespace_parent_name_parent_version", "lineage")
    op.rename_table("lineage", "old_lineage")
    if op.get_bind().dialect.name == "postgresql":  # where the names of keys are unique in a schema
        op.execute("ALTER TABLE old_lineage RENAME CONSTRAINT pk_lineage TO pk_old_lineage")
    op.create_table(
        "lineage",
        sa.Column("namespace", _Text, nullable=False),
        sa.Column("name", _Text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("relation", _Text, nullable=False),
        sa.Column("parent_namespace", _Text, nullable=False),
        sa.Column("parent_name", _Text, nullable=False),
        sa.Column("parent_version", sa.BigInteger(), nullable=False),
        *columns,
        sa.CheckConstraint(f"relation IN {relations}", name=op.f("ck_lineage_relation")),
        sa.PrimaryKeyConstraint(*key, name="pk_lineage"),
        sqlite_with_rowid=False,
    )
    op.execute(f"INSERT INTO lineage ({_NAMES}) SELECT {_NAMES} FROM old_lineage")  # noqa: S608 - our own names
    op.drop_table("old_lineage")
    op.create_index(
        "ix_lineage_parent_namespace_parent_name_parent_version",
        "lineage",
        ["parent_namespace", "parent_name", "parent_version"],
    )
