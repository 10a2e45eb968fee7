"""Tokens for tests of their rights: written straight into a catalog, and a server's own."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from app.catalog import Catalog, tokens
from app.values.token import Scope, new_token
from tests.support.server import Server, start_server


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


SERVER_TOKEN = "the-servers-own"


@contextmanager
def running_with_a_token(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with SERVER_TOKEN, on the database that is the parameter of the fixture ``request``."""
    options: tuple[str, ...] = ()
    if request.param == "postgresql":
        options = ("--database-url", request.getfixturevalue("postgres").database())
    env = {"STATEROOM_SERVER_TOKEN": SERVER_TOKEN, "STATEROOM_DURABLE": "off"}
    server = start_server(folders.mktemp("guarded") / "data", *options, env=env)
    try:
        yield server
    finally:
        server.kill()
