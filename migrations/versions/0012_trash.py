"""The trash and the history of removed checkpoints; pins, slots, expiry and thinning of checkpoints; retention."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_COLUMNS = (
    ("pinned_at", sa.BigInteger()),
    ("pinned_by", _Text),
    ("pin_reason", _Text),
    ("slot", _Text),
    ("expires_at", sa.BigInteger()),
    ("thinned_at", sa.BigInteger()),
    ("optimizer_bytes", sa.BigInteger()),
)


def upgrade() -> None:
    for name, kind in _COLUMNS:
        op.add_column("checkpoints", sa.Column(name, kind))
    for name, column in (
        ("ix_checkpoints_expires_at", "expires_at"),
        ("ix_checkpoints_model_id_slot", "slot"),
    ):
        there = sa.text(f"{column} IS NOT NULL")
        columns = [column] if column == "expires_at" else ["model_id", column]
        op.create_index(name, "checkpoints", columns, sqlite_where=there, postgresql_where=there)
    op.add_column("models", sa.Column("retention", sa.JSON(none_as_null=True)))
    op.create_table(
        "removed_checkpoints",
        sa.Column("model_id", _Id, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("checkpoint_id", _Id),
        sa.Column("run", _Text),
        sa.Column("epoch", sa.BigInteger()),
        sa.Column("step", sa.BigInteger()),
        sa.Column("loss", sa.Double()),
        sa.Column("loss_nonfinite", _Text),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_by", _Text),
        sa.Column("reason", _Text, nullable=False),
        sa.Column("purge_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "version", name="pk_removed_checkpoints"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_removed_checkpoints_model_id"),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoints.id"], name="fk_removed_checkpoints_checkpoint_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_removed_checkpoints_checkpoint_id", "removed_checkpoints", ["checkpoint_id"])
    in_trash = sa.text("checkpoint_id IS NOT NULL")
    op.create_index(
        "ix_removed_checkpoints_purge_at",
        "removed_checkpoints",
        ["purge_at"],
        sqlite_where=in_trash,
        postgresql_where=in_trash,
    )


def downgrade() -> None:
    op.drop_table("removed_checkpoints")
    op.drop_column("models", "retention")
    op.drop_index("ix_checkpoints_model_id_slot", "checkpoints")
    op.drop_index("ix_checkpoints_expires_at", "checkpoints")
    for name, _ in reversed(_COLUMNS):
        op.drop_column("checkpoints", name)
