"""Blobs whose bytes were found damaged, and those that an upload has healed since."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("blobs", sa.Column("damaged_at", sa.BigInteger()))
    op.add_column("blobs", sa.Column("healed_at", sa.BigInteger()))
    for column in ("damaged_at", "healed_at"):
        op.create_index(
            f"ix_blobs_{column}",
            "blobs",
            [column],
            sqlite_where=sa.text(f"{column} IS NOT NULL"),
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )


def downgrade() -> None:
    for column in ("damaged_at", "healed_at"):
        op.drop_index(f"ix_blobs_{column}", "blobs")
        op.drop_column("blobs", column)
