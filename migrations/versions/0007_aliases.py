"""Aliases of checkpoints, and all their changes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("model_id", _Id, nullable=False),
        sa.Column("name", _Text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "name", name="pk_aliases"),
        sa.ForeignKeyConstraint(
            ["model_id", "version"],
            ["checkpoints.model_id", "checkpoints.version"],
            name="fk_aliases_model_id_version",
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_aliases_model_id_version", "aliases", ["model_id", "version"])
    op.create_table(
        "alias_changes",
        sa.Column("model_id", _Id, nullable=False),
        sa.Column("name", _Text, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger()),
        sa.Column("previous_version", sa.BigInteger()),
        sa.Column("protected", sa.Boolean(), nullable=False),
        sa.Column("note", _Text),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("by", _Text),
        sa.PrimaryKeyConstraint("model_id", "name", "revision", name="pk_alias_changes"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_alias_changes_model_id"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("alias_changes")
    op.drop_table("aliases")
