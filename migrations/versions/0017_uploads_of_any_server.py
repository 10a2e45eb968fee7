"""Any server may receive the parts of an upload: they are in the store, and no longer in one server's data dir.

Running uploads begin anew, because their parts are where no server looks any more.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _make_anew([], [])


def downgrade() -> None:
    op.execute("DELETE FROM packs WHERE state = 'writing' AND name IN (SELECT id FROM uploads)")
    _make_anew([sa.Column("holder", TEXT, nullable=False)], [sa.Column("stamp", TEXT, nullable=False)])


def _make_anew(of_uploads: list[sa.Column[str]], of_parts: list[sa.Column[str]]) -> None:
    op.drop_table("upload_parts")
    op.drop_table("uploads")
    op.create_table(
        "uploads",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        *of_uploads,
        sa.Column("split", sa.LargeBinary(), nullable=False),
        sa.Column("original", sa.Boolean(), nullable=False),
        sa.Column("kept_until", sa.BigInteger(), nullable=False),
        sa.Column("parent", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.UniqueConstraint(
            "namespace",
            "name",
            "digest",
            *(column.name for column in of_uploads),
            name="uq_uploads_namespace_name_digest" + "".join(f"_{column.name}" for column in of_uploads),
        ),
    )
    op.create_index("ix_uploads_kept_until", "uploads", ["kept_until"])
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", TEXT, nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("checksums", sa.LargeBinary(), nullable=False),
        *of_parts,
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name="fk_upload_parts_upload_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upload_id", "first", "end", name="pk_upload_parts"),
    )
