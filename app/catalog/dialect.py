"""All differences between SQLite and PostgreSQL: engines, pragmas, errors, a few SQL expressions."""

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Insert,
    Table,
    create_engine,
    event,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..errors import StateroomError, StorageFull, StoreError
from ..private import FILE, shut
from . import postgres
from .postgres import NOTICED, Scope, Trust, postgresql_engine

BUSY_TIMEOUT = 30
"""Longest wait for another writer, in seconds. Then the request fails with ``catalog-busy``."""

_READERS = 32  # connections; further threads wait for one
_WRITERS = 4  # on PostgreSQL; SQLite has one writer


def parse_url(url: str) -> URL:
    """Parse a database URL. Raises StateroomError, code ``bad-database-url``, if it cannot hold a catalog."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    match None if parsed is None else parsed.drivername:
        case "sqlite" if parsed is not None and parsed.database not in {None, "", ":memory:"}:
            return parsed
        case "postgresql" | "postgres" | "postgresql+psycopg" if parsed is not None and parsed.database:
            return parsed.set(drivername="postgresql+psycopg")
    raise StateroomError(
        "the database URL must be sqlite:///PATH, the path of a file, or postgresql://USER:PASSWORD@HOST/DATABASE",
        code="bad-database-url",
    )


def is_there(url: URL) -> bool:
    """Tell whether the database may exist: False only for a missing SQLite file."""
    return url.get_backend_name() != "sqlite" or Path(str(url.database)).is_file()


def engines(url: URL, *, durable: bool) -> tuple[Engine, Engine]:
    """An engine of read-only connections, whose transactions each see one snapshot of the catalog; and one whose
    transactions begin with ``lock``, and on SQLite are alone from their start.
    """
    if url.get_backend_name() == "sqlite":
        synchronous = "synchronous=FULL" if durable else "synchronous=OFF"
        return (
            _sqlite_engine(url, "BEGIN", ("foreign_keys=ON", "query_only=ON"), _READERS),
            _sqlite_engine(url, "BEGIN IMMEDIATE", ("journal_mode=WAL", synchronous, "foreign_keys=ON"), 1),
        )
    settings, trust = "" if durable else "-c synchronous_commit=off", Trust()
    return (
        postgresql_engine(url, trust, read_only=True, timeout=BUSY_TIMEOUT, **_pool(_READERS)),
        postgresql_engine(url, trust, read_only=False, timeout=BUSY_TIMEOUT, settings=settings, **_pool(_WRITERS)),
    )


def migrating_engine(url: URL) -> Engine:
    """A writing engine for migrations, whose transactions are alone from their start. On SQLite foreign keys are off,
    because rebuilding a table must not cascade: ``check_foreign_keys`` checks them at the end.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, "BEGIN IMMEDIATE", ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=OFF"), 1)
    engine = postgresql_engine(url, Trust(), read_only=False, timeout=BUSY_TIMEOUT, **_pool(1))
    event.listen(engine, "begin", lambda connection: postgres.lock(connection, Scope()))
    return engine


def connect_options(url: URL) -> dict[str, Any]:
    """Return the driver's options for a connection to PostgreSQL outside of every engine."""
    _, options = url.get_dialect()().create_connect_args(url)
    return {**options, "connect_timeout": 10, **NOTICED}


def check_foreign_keys(connection: Connection) -> None:
    """Raise StoreError if a migration broke a reference."""
    if (
        connection.dialect.name == "sqlite"
        and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None
    ):
        raise StoreError("a migration broke the catalog's foreign keys and was rolled back", code="catalog-failed")


def _sqlite_engine(url: URL, begin: str, pragmas: tuple[str, ...], connections: int) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT},
        **_pool(connections),
    )

    @event.listens_for(engine, "do_connect")
    def before_connect(*_: object) -> None:
        _keep_private(Path(str(url.database)))

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver never begins a transaction; on_begin does
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _keep_private(database: Path) -> None:
    """Make the file with a private mode, or make an existing one private. SQLite gives its side files the same mode.

    Raises StateroomError if that fails. SQLite itself reports any other reason why the file cannot be opened.
    """
    with suppress(OSError):  # never open an existing file: closing it would drop this process's locks
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE))
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            shut(database.with_name(database.name + suffix))


def _pool(connections: int) -> dict[str, Any]:
    return {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": BUSY_TIMEOUT,
        "json_serializer": _to_json,
    }


def lock(connection: Connection, scope: Scope) -> None:
    """Wait until no other write concerns the rows of ``scope``. On SQLite every write is alone anyway."""
    if connection.dialect.name == "postgresql":
        postgres.lock(connection, scope)


def lock_events(connection: Connection) -> None:
    """Wait until no other transaction is between numbering its events and its end. On SQLite, none is; there, the
    catalog tells the listeners.
    """
    if connection.dialect.name == "postgresql":
        postgres.lock_events(connection)


def together(connection: Connection) -> AbstractContextManager[None]:
    """Send the statements of the block in one round trip. None of them may return rows."""
    return postgres.together(connection) if connection.dialect.name == "postgresql" else nullcontext()


def commit(connection: Connection) -> None:
    """Commit ``together`` with other statements. On SQLite, the end of the transaction does so."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("COMMIT")


def is_read_only(connection: Connection) -> bool:
    """Tell whether the database takes no writes: a standby of PostgreSQL, or one that was set so."""
    if connection.dialect.name != "postgresql":
        return False
    asked = "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on'"
    return bool(connection.exec_driver_sql(asked).scalar())


def _to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate database failures into our error classes. Mistakes in our own SQL pass through."""
    try:
        yield
    except PoolTimeoutError as error:
        raise busy() from error
    except DBAPIError as error:
        known = _sqlite_failure(error) if isinstance(error.orig, sqlite3.Error) else _postgresql_failure(error)
        if known is None:
            raise
        raise known from error


def _sqlite_failure(error: DBAPIError) -> StoreError | None:
    # The lower byte of an extended result code is its family: https://www.sqlite.org/rescode.html
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # no room for the index of the WAL
        return StorageFull("no room left for the catalog")
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StorageFull("no room left for the catalog")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return busy()
        case sqlite3.SQLITE_NOTADB:
            return _failed("the catalog's database failed: its file is no database; correct the database URL")
        case sqlite3.SQLITE_CORRUPT:
            return _failed("the catalog's database failed: its file is damaged; restore a backup")
        case sqlite3.SQLITE_CANTOPEN:
            return _failed("the catalog's database failed: its file cannot be opened; its folder must exist")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return _failed("the catalog's database failed: its file cannot be written; the server's user has to own it")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            return _failed("the catalog's database failed")
    return None


_PASSING = {"55P03", "40P01", "40001", "23001", "23503", "53300"}
"""Lock timeout, deadlock, serialization failure, a row that another transaction deleted or needs, too many connections.
Locks keep foreign keys from failing; if they ever do, nothing was changed, and another try sees the other's change.
"""


_NOT_LET_IN = re.compile(
    r"(password|ident|peer) authentication failed|no password supplied|role .* does not exist|pg_hba"
)
_NO_DATABASE = re.compile(r"database .* does not exist")
_NO_HOST = re.compile(r"resolve host|translate host|not known")
_NO_SERVER = re.compile(r"Connection refused|No such file or directory")

_UNREACHABLE = (
    (_NOT_LET_IN, ": it does not accept the user or the password of the database URL"),
    (_NO_DATABASE, ": create the database that its URL names, or correct the URL"),
    (_NO_HOST, ": the host of the database URL is not known"),
    (_NO_SERVER, ": no server listens at the address of the database URL"),
)
"""The reasons why a connection cannot be made, by the texts of libpq and of the server, which have no code. In another
language they are not recognized.
"""


def _postgresql_failure(error: DBAPIError) -> StoreError | None:
    """The error for a SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). A lost or failed
    connection has none.
    """
    state = getattr(error.orig, "sqlstate", None) or ""
    if state == "53100":
        return StorageFull("no room left for the catalog")
    if state in _PASSING:
        return busy()
    if state == "42501":
        return _failed(
            "the database forbids its user to use the catalog's tables: grant it all privileges on them, or let it own "
            "them"
        )
    if state == "25006":
        return read_only()
    if isinstance(error, OperationalError) and not state:
        reason = next((words for pattern, words in _UNREACHABLE if pattern.search(str(error.orig))), "")
        return _failed(f"the catalog's database failed or cannot be reached{reason}")
    if isinstance(error, OperationalError) or state[:2] in {"08", "25", "53", "57", "58", "XX"}:
        return _failed("the catalog's database failed or cannot be reached")
    return None


def _failed(detail: str) -> StoreError:
    return StoreError(detail, code="catalog-failed")


def read_only() -> StoreError:
    """The error of a writer to a database that takes no writes."""
    return _failed("the catalog's database is read-only: name its primary server in the database URL")


def busy() -> StoreError:
    """The error of a writer that may succeed if it tries again."""
    return StoreError("the catalog is busy; retry later", code="catalog-busy")


def insert_or_keep(connection: Connection, table: Table) -> Insert:
    """An insert that leaves existing rows unchanged."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()
