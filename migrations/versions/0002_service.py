"""The tables for long operation: tokens, idempotency keys for retries, a sweep that runs beside the server."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("blobs", sa.Column("unused_since", sa.BigInteger()))
    op.create_index(
        "ix_blobs_unused_since",
        "blobs",
        ["unused_since"],
        sqlite_where=sa.text("unused_since IS NOT NULL"),
        postgresql_where=sa.text("unused_since IS NOT NULL"),
    )
    # Dropped, because checksums are derived and computed again on demand. The new rows name their blob.
    op.drop_table("checksums")
    op.create_table(
        "checksums",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key", name="pk_checksums"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_checksums_namespace_digest", "checksums", ["namespace", "digest"])
    op.create_table(
        "idempotency_keys",
        sa.Column("model_id", ID, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("checkpoint_id", ID, nullable=False),
        sa.Column("kept_until", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_idempotency_keys_model_id"),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_idempotency_keys_checkpoint_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "key", name="pk_idempotency_keys"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_keys_checkpoint_id", "idempotency_keys", ["checkpoint_id"])
    op.create_index("ix_idempotency_keys_kept_until", "idempotency_keys", ["kept_until"])
    op.create_table(
        "tokens",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("secret_hash", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("namespace", TEXT),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.CheckConstraint("scope IN ('read', 'write', 'admin')", name=op.f("ck_tokens_scope")),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("name", name="uq_tokens_name"),
    )
    signing_keys = op.create_table(
        "signing_keys",
        sa.Column("id", ID, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_signing_keys"),
    )
    op.bulk_insert(signing_keys, [{"key": secrets.token_hex(32)}])
    op.create_table(
        "leases",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )


def downgrade() -> None:
    for table in ("leases", "signing_keys", "tokens", "idempotency_keys", "checksums"):
        op.drop_table(table)
    op.create_table(
        "checksums",
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key", name="pk_checksums"),
        sqlite_with_rowid=False,
    )
    op.drop_index("ix_blobs_unused_since", "blobs")
    op.drop_column("blobs", "unused_since")
