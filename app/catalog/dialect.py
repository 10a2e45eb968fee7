"""Where databases differ, and the only module that knows it: engines, pragmas, errors, a few words of SQL."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, Insert, Select, Table, Text, cast, create_engine, event, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from ..errors import StateroomError, StorageFull, StoreError

BUSY_TIMEOUT = 30
"""Seconds to wait for a writer before a request is told to come back later."""

_READERS = 32  # connections; more threads than this wait their turn
_INSERT = {"sqlite": sqlite.insert}


def parse_url(url: str) -> URL:
    """Raises StateroomError, code ``bad-database-url``, for what Stateroom cannot keep a catalog in."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() != "sqlite" or parsed.database in {None, "", ":memory:"}:
        raise StateroomError("the database URL must be sqlite:///PATH, the path of a file", code="bad-database-url")
    return parsed


def reading_engine(url: URL) -> Engine:
    """Connections whose transactions see one moment of the catalog, and which refuse to write."""
    return _sqlite_engine(url, "BEGIN", ("foreign_keys=ON", "query_only=ON"), _READERS)


def writing_engine(url: URL, *, durable: bool) -> Engine:
    """Connections whose transactions hold the write lock from their start.

    One connection in each process: its threads queue in the pool, in order, rather than in SQLite's polling.
    """
    synchronous = "synchronous=FULL" if durable else "synchronous=OFF"
    return _sqlite_engine(url, "BEGIN IMMEDIATE", ("journal_mode=WAL", synchronous, "foreign_keys=ON"), 1)


def migrating_engine(url: URL) -> Engine:
    """As for writing, but rebuilding a table must not cascade: foreign keys are checked at the end instead."""
    return _sqlite_engine(url, "BEGIN IMMEDIATE", ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=OFF"), 1)


def check_foreign_keys(connection: Connection) -> None:
    """Raises StoreError when a migration broke a reference."""
    if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise StoreError("a migration would have broken the catalog, and was undone", code="catalog-failed")


def _sqlite_engine(url: URL, begin: str, pragmas: tuple[str, ...], connections: int) -> Engine:
    engine = create_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT,
        connect_args={"timeout": BUSY_TIMEOUT},
        json_serializer=lambda value: json.dumps(value, separators=(",", ":")),
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself; on_begin does
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


@contextmanager
def translated_errors() -> Iterator[None]:
    """Failures of the database as the errors that callers know. Mistakes in our own SQL pass through."""
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreError("the catalog is busy; try again later", code="catalog-busy") from error
    except DBAPIError as error:
        # The lower byte of an extended result code is its family: https://www.sqlite.org/rescode.html
        code = getattr(error.orig, "sqlite_errorcode", None)
        match None if code is None else code & 0xFF:
            case sqlite3.SQLITE_FULL:
                raise StorageFull("no room left for the catalog") from error
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                raise StoreError("the catalog is busy; try again later", code="catalog-busy") from error
            case (
                sqlite3.SQLITE_IOERR
                | sqlite3.SQLITE_CORRUPT
                | sqlite3.SQLITE_NOTADB
                | sqlite3.SQLITE_CANTOPEN
                | sqlite3.SQLITE_READONLY
                | sqlite3.SQLITE_PERM
                | sqlite3.SQLITE_NOMEM
            ):
                raise StoreError("the catalog's database failed", code="catalog-failed") from error
            case _:
                raise


def insert_or_keep(connection: Connection, table: Table) -> Insert:
    """An insert that leaves a row alone that is already there."""
    return _INSERT[connection.dialect.name](table).on_conflict_do_nothing()


class _json_elements(GenericFunction[Any]):  # noqa: N801 - named like the SQL function it stands for
    inherit_cache = True


@compiles(_json_elements, "sqlite")
def _json_each(element: _json_elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each{compiler.process(element.clause_expr, **options)}"


def each_text(items: Iterable[str]) -> Select[Any]:
    """A column ``value`` of texts: however many, one parameter. Sorted, because an index takes them fastest so."""
    elements = _json_elements(json.dumps(sorted(items))).table_valued("value")
    return select(cast(elements.c.value, Text).label("value"))


def each_integer(items: Iterable[int]) -> Select[Any]:
    """A column ``value`` of integers: however many, one parameter."""
    elements = _json_elements(json.dumps(list(items))).table_valued("value")
    return select(cast(elements.c.value, BigInteger).label("value"))
