"""Loose files: files that clients write by name before a checkpoint is made of them, as fsspec's tools do.

Going back forgets those that are waiting.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "loose_files",
        sa.Column("id", _Id, nullable=False),
        sa.Column("namespace", _Text, nullable=False),
        sa.Column("name", _Text, nullable=False),
        sa.Column("path", _Text, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("recipe", sa.LargeBinary()),
        sa.Column("recipe_bytes", sa.BigInteger(), nullable=False),
        sa.Column("writer", _Text, nullable=False),
        sa.Column("replaced", sa.BigInteger()),
        sa.Column("written_at", sa.BigInteger(), nullable=False),
        sa.Column("kept_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loose_files"),
        sa.UniqueConstraint("namespace", "name", "path", name="uq_loose_files_namespace_name_path"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_loose_files_kept_until", "loose_files", ["kept_until"])


def downgrade() -> None:
    op.drop_table("loose_files")
