"""The time when a model without checkpoints was deleted. Its row stays, so that no version is given twice."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("models", sa.Column("deleted_at", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("models", "deleted_at")
