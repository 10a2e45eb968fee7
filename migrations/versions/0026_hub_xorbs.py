"""The tools of the Hugging Face Hub upload by Xet: chunks of files wait for the files that are made of them.

Going back forgets those that are waiting, and a client sends them again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "hub_xorbs",
        sa.Column("namespace", _Text, nullable=False),
        sa.Column("session", _Text, nullable=False),
        sa.Column("hash", _Text, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.BigInteger(), nullable=False),
        sa.Column("is_used", sa.Boolean(), nullable=False),
        sa.Column("pack_id", _Id, nullable=False),
        sa.ForeignKeyConstraint(["pack_id"], ["packs.id"], name="fk_hub_xorbs_pack_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("namespace", "session", "hash", name="pk_hub_xorbs"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_hub_xorbs_pack_id", "hub_xorbs", ["pack_id"])


def downgrade() -> None:
    op.drop_table("hub_xorbs")
