"""Tokens written straight into a catalog, for tests of their rights."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

from app.catalog import Catalog, tokens
from app.values.token import Scope, new_token
from tests.support.server import Server


def catalog_url(server: Server) -> str:
    """Return the database URL of a server that was started with ``--database-url``, or without."""
    if "--database-url" in server.args:
        return server.args[server.args.index("--database-url") + 1]
    return f"sqlite:///{server.data_dir}/catalog.sqlite3"


def make_token(url: str, name: str, scope: str, *namespaces: str | None, seconds: float | None = None) -> str:
    """Create a token, without a namespace for all of them, and return its text. It expires after ``seconds``, which may
    be negative.
    """
    now = datetime.now(UTC)
    expires_at = None if seconds is None else now + timedelta(seconds=seconds)
    token, text = new_token(name, Scope(scope), frozenset(filter(None, namespaces)) or None, now, expires_at)
    with closing(Catalog(url, durable=False)) as catalog, catalog.write() as w:
        tokens.add(w, token)
    return text


def revoke_token(url: str, name: str) -> None:
    with closing(Catalog(url, durable=False)) as catalog, catalog.write() as w:
        tokens.revoke(w, name, datetime.now(UTC))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
