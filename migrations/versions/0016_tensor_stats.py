"""Statistics of tensors, and scans for numbers that are not finite."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "tensor_stats",
        sa.Column("namespace", _Text, nullable=False),
        sa.Column("key", _Text, nullable=False),
        sa.Column("digest", _Text, nullable=False),
        sa.Column("text", _Text, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key", name=op.f("pk_tensor_stats")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_tensor_stats_namespace_digest"), "tensor_stats", ["namespace", "digest"])
    op.add_column("checkpoints", sa.Column("nonfinite_tensors", sa.BigInteger()))
    op.add_column("checkpoints", sa.Column("scan_at", sa.BigInteger()))
    op.create_index(
        op.f("ix_checkpoints_model_id_nonfinite_tensors_version"),
        "checkpoints",
        ["model_id", "nonfinite_tensors", "version"],
    )
    wanted = sa.text("scan_at IS NOT NULL")
    op.create_index(
        op.f("ix_checkpoints_scan_at"), "checkpoints", ["scan_at"], sqlite_where=wanted, postgresql_where=wanted
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_checkpoints_scan_at"), "checkpoints")
    op.drop_index(op.f("ix_checkpoints_model_id_nonfinite_tensors_version"), "checkpoints")
    op.drop_column("checkpoints", "scan_at")
    op.drop_column("checkpoints", "nonfinite_tensors")
    op.drop_table("tensor_stats")
