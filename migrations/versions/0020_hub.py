"""The tools of the Hugging Face Hub write: files sent ahead of commits, texts of commits, tags, and drafts.

Going back forgets all of these; the checkpoints that were made of commits stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "hub_objects",
        sa.Column("namespace", _Text, nullable=False),
        sa.Column("sha256", _Text, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("pack_id", _Id, nullable=False),
        sa.ForeignKeyConstraint(["pack_id"], ["packs.id"], name="fk_hub_objects_pack_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("namespace", "sha256", name="pk_hub_objects"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_hub_objects_pack_id", "hub_objects", ["pack_id"])
    op.create_table(
        "hub_commits",
        sa.Column("checkpoint_id", _Id, nullable=False),
        sa.Column("title", _Text, nullable=False),
        sa.Column("message", _Text, nullable=False),
        sa.Column("sha256s", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_hub_commits_checkpoint_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("checkpoint_id", name="pk_hub_commits"),
    )
    op.create_table(
        "hub_tags",
        sa.Column("model_id", _Id, nullable=False),
        sa.Column("tag", _Text, nullable=False),
        sa.Column("checkpoint_id", _Id, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_hub_tags_model_id"),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_hub_tags_checkpoint_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "tag", name="pk_hub_tags"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_hub_tags_checkpoint_id", "hub_tags", ["checkpoint_id"])
    op.create_table(
        "hub_drafts",
        sa.Column("namespace", _Text, nullable=False),
        sa.Column("name", _Text, nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", name="pk_hub_drafts"),
    )


def downgrade() -> None:
    for table in ("hub_drafts", "hub_tags", "hub_commits", "hub_objects"):
        op.drop_table(table)
