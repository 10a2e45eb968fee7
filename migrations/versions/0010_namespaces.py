"""Quotas of namespaces, and counters of what each holds."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_FILL = """
INSERT INTO namespaces (namespace, checkpoints, logical_bytes, stored_bytes)
SELECT known.namespace, COALESCE(held.checkpoints, 0), COALESCE(held.bytes, 0), COALESCE(stored.bytes, 0)
FROM (SELECT namespace FROM models UNION SELECT namespace FROM blobs) AS known
LEFT JOIN (
    SELECT models.namespace, count(*) AS checkpoints, sum(checkpoints.nbytes) AS bytes
    FROM checkpoints JOIN models ON models.id = checkpoints.model_id
    WHERE checkpoints.version IS NOT NULL
    GROUP BY models.namespace
) AS held ON held.namespace = known.namespace
LEFT JOIN (
    SELECT namespace, sum(length) AS bytes FROM blobs GROUP BY namespace
) AS stored ON stored.namespace = known.namespace
"""


def upgrade() -> None:
    op.create_table(
        "namespaces",
        sa.Column("namespace", _Text, nullable=False),
        sa.Column("quota_bytes", sa.BigInteger()),
        sa.Column("quota_checkpoints", sa.BigInteger()),
        sa.Column("checkpoints", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("logical_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("namespace", name="pk_namespaces"),
    )
    op.execute(_FILL)


def downgrade() -> None:
    op.drop_table("namespaces")
