"""The tables that uploads, listings and downloads need."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "checksums",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key", name="pk_checksums"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "models",
        sa.Column("id", ID, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("best", TEXT, nullable=False),
        sa.Column("next_version", sa.BigInteger(), nullable=False),
        sa.Column("checkpoints", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("namespace", "name", name="uq_models_namespace_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "packs",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('writing', 'sealed')", name=op.f("ck_packs_state")),
        sa.PrimaryKeyConstraint("id", name="pk_packs"),
        sa.UniqueConstraint("name", name="uq_packs_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_packs_state_lease_until", "packs", ["state", "lease_until"])
    op.create_table(
        "blobs",
        sa.Column("id", ID, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("pack_id", ID, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.Column("blocks", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["pack_id"], ["packs.id"], name="fk_blobs_pack_id", ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name="pk_blobs"),
        sa.UniqueConstraint("namespace", "digest", name="uq_blobs_namespace_digest"),
    )
    op.create_index("ix_blobs_pack_id", "blobs", ["pack_id"])
    op.create_table(
        "checkpoints",
        sa.Column("id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger()),
        sa.Column("run", TEXT),
        sa.Column("epoch", sa.BigInteger()),
        sa.Column("step", sa.BigInteger()),
        sa.Column("loss", sa.Double()),
        sa.Column("loss_nonfinite", TEXT),
        sa.Column("format", TEXT, nullable=False),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("components", sa.JSON(), nullable=False),
        sa.Column("unsafe_globals", sa.JSON(), nullable=False),
        sa.Column("manifest", TEXT, nullable=False),
        sa.Column("frame", TEXT, nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.Column("new_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("loss IS NULL OR loss_nonfinite IS NULL", name=op.f("ck_checkpoints_one_loss")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_checkpoints_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoints"),
        sa.UniqueConstraint("model_id", "version", name="uq_checkpoints_model_id_version"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_checkpoints_model_id_created_at_version", "checkpoints", ["model_id", "created_at", "version"])
    op.create_index("ix_checkpoints_model_id_epoch_version", "checkpoints", ["model_id", "epoch", "version"])
    op.create_index("ix_checkpoints_model_id_loss_version", "checkpoints", ["model_id", "loss", "version"])
    op.create_index("ix_checkpoints_model_id_nbytes_version", "checkpoints", ["model_id", "nbytes", "version"])
    op.create_index("ix_checkpoints_model_id_run_epoch_version", "checkpoints", ["model_id", "run", "epoch", "version"])
    op.create_index("ix_checkpoints_model_id_run_loss_version", "checkpoints", ["model_id", "run", "loss", "version"])
    op.create_index("ix_checkpoints_model_id_run_step_version", "checkpoints", ["model_id", "run", "step", "version"])
    op.create_index("ix_checkpoints_model_id_run_version", "checkpoints", ["model_id", "run", "version"])
    op.create_index("ix_checkpoints_model_id_step_version", "checkpoints", ["model_id", "step", "version"])
    op.create_index(
        "ix_checkpoints_unfinished",
        "checkpoints",
        ["created_at"],
        sqlite_where=sa.text("version IS NULL"),
        postgresql_where=sa.text("version IS NULL"),
    )
    op.create_table(
        "checkpoint_blobs",
        sa.Column("checkpoint_id", ID, nullable=False),
        sa.Column("blob_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name="fk_checkpoint_blobs_blob_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_checkpoint_blobs_checkpoint_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("checkpoint_id", "blob_id", name="pk_checkpoint_blobs"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_checkpoint_blobs_blob_id", "checkpoint_blobs", ["blob_id"])
    op.create_table(
        "metrics",
        sa.Column("model_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("run", TEXT),
        sa.Column("value", sa.Double()),
        sa.Column("nonfinite", TEXT),
        sa.CheckConstraint("(value IS NULL) <> (nonfinite IS NULL)", name=op.f("ck_metrics_one_value")),
        sa.ForeignKeyConstraint(
            ["model_id", "version"],
            ["checkpoints.model_id", "checkpoints.version"],
            name="fk_metrics_model_id_version",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model_id", "version", "name", name="pk_metrics"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_metrics_model_id_name_value_version", "metrics", ["model_id", "name", "value", "version"])
    op.create_index(
        "ix_metrics_model_id_run_name_value_version", "metrics", ["model_id", "run", "name", "value", "version"]
    )
    op.create_table(
        "tags",
        sa.Column("model_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("run", TEXT),
        sa.Column("value", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id", "version"],
            ["checkpoints.model_id", "checkpoints.version"],
            name="fk_tags_model_id_version",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model_id", "version", "name", name="pk_tags"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tags_model_id_name_value_version", "tags", ["model_id", "name", "value", "version"])
    op.create_index("ix_tags_model_id_run_name_value_version", "tags", ["model_id", "run", "name", "value", "version"])
    op.create_table(
        "plans",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("document", TEXT, nullable=False),
        sa.Column("kept_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "digest", name="pk_plans"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_plans_kept_until", "plans", ["kept_until"])


def downgrade() -> None:
    op.drop_table("plans")
    op.drop_table("tags")
    op.drop_table("metrics")
    op.drop_table("checkpoint_blobs")
    op.drop_table("checkpoints")
    op.drop_table("blobs")
    op.drop_table("packs")
    op.drop_table("models")
    op.drop_table("checksums")
