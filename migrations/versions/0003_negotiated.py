"""Uploads that arrive in parts, and checkpoints that never were one file."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("original", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_table(
        "uploads",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("split", sa.LargeBinary(), nullable=False),
        sa.Column("original", sa.Boolean(), nullable=False),
        sa.Column("kept_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.UniqueConstraint("namespace", "name", "digest", name="uq_uploads_namespace_name_digest"),
    )
    op.create_index("ix_uploads_kept_until", "uploads", ["kept_until"])
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", TEXT, nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("checksums", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name="fk_upload_parts_upload_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upload_id", "first", "end", name="pk_upload_parts"),
    )


def downgrade() -> None:
    op.drop_table("upload_parts")
    op.drop_table("uploads")
    op.drop_column("checkpoints", "original")
