"""A token may be valid in several namespaces, and tells when it was last used.

Going back revokes the tokens of several namespaces, because an older server has no way to limit them.
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TOKENS = sa.table(
    "tokens",
    sa.column("id", TEXT),
    sa.column("namespace", TEXT),
    sa.column("namespaces", sa.JSON(none_as_null=True)),
    sa.column("revoked_at", sa.BigInteger()),
)


def upgrade() -> None:
    op.add_column("tokens", sa.Column("namespaces", sa.JSON(none_as_null=True)))
    op.add_column("tokens", sa.Column("last_used_at", sa.BigInteger()))
    limited = sa.select(TOKENS.c.id, TOKENS.c.namespace).where(TOKENS.c.namespace.is_not(None))
    for row in op.get_bind().execute(limited).all():
        op.execute(TOKENS.update().where(TOKENS.c.id == row.id).values(namespaces=[row.namespace]))
    op.drop_column("tokens", "namespace")


def downgrade() -> None:
    op.add_column("tokens", sa.Column("namespace", TEXT))
    now = time.time_ns() // 1000
    limited = sa.select(TOKENS.c.id, TOKENS.c.namespaces).where(TOKENS.c.namespaces.is_not(None))
    for row in op.get_bind().execute(limited).all():
        op.execute(TOKENS.update().where(TOKENS.c.id == row.id).values(namespace=row.namespaces[0]))
        if len(row.namespaces) > 1:
            good = (TOKENS.c.id == row.id, TOKENS.c.revoked_at.is_(None))
            op.execute(TOKENS.update().where(*good).values(revoked_at=now))
    op.drop_column("tokens", "last_used_at")
    op.drop_column("tokens", "namespaces")
