"""Copies of a whole catalog: from a database to a SQLite file, for a backup, and back into an empty database.

The file has the same tables, whatever the database, so it can be loaded into either.
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Table, delete, func, literal, select, text, tuple_
from sqlalchemy.exc import DBAPIError

from ..errors import Conflict
from ..private import FILE
from . import events, unfinished, unused
from .catalog import Catalog
from .migrate import REVISION, newer
from .postgres import Scope
from .session import WriteSession
from .tables import checkpoints as checkpoints_table
from .tables import leases, metadata, models, packs, signing_keys, uploads

ROWS_AT_ONCE = 2_000

_MADE_BY_A_START = (leases, signing_keys)
"""Tables that have rows before anybody has stored anything."""


def save(catalog: Catalog, file: Path, *, durable: bool) -> None:
    """Copy everything, as one moment saw it, to a new SQLite file. Uploads that are under way are left out. Writers go
    on meanwhile.

    Raises StateroomError, code ``catalog-newer``, if a newer Stateroom has migrated the database.
    """
    if catalog.revision() != REVISION:
        raise newer()
    with closing(Catalog(_url(file), durable=False)) as copy:
        if catalog.is_file:
            with catalog.rows() as rows:
                _save_pages(rows, file)
        else:
            copy.migrate()
            with catalog.rows() as rows, copy.filling() as connection:
                _copy_rows(rows, connection)
        unfinished.drop(copy, None, lambda: None)
        with copy.write() as w:
            w.execute(delete(uploads))
            w.execute(delete(leases))
            running = w.select(select(packs.c.name).where(packs.c.lease_until > 0)).scalars().all()
        for pack in running:
            unused.release(copy, pack)
        with copy.write() as w:
            w.execute(delete(packs).where(packs.c.state == "writing"))  # their bytes are not copied
    _close_file(file)
    if durable:
        with file.open("rb") as written:
            os.fsync(written.fileno())


def load(catalog: Catalog, file: Path, backup: str) -> None:
    """Copy everything from a file that ``save`` made into an empty catalog of the same revision, in one transaction,
    and record that ``backup`` was restored.

    Raises Conflict if anybody has used the catalog.
    """
    with closing(Catalog(_url(file))) as copy, copy.rows() as rows, catalog.filling() as connection:
        _refuse_unless_empty(connection)
        _copy_rows(rows, connection)
        events.begin_anew(WriteSession(connection, Scope()), backup, datetime.now(UTC))


def opened(file: Path) -> Catalog:
    """Open a file that ``save`` made, to read it."""
    return Catalog(_url(file))


def check_empty(catalog: Catalog) -> None:
    """Raise Conflict if anybody has used the catalog. A database without a catalog is empty."""
    if catalog.revision() is not None:
        with catalog.rows() as rows:
            _refuse_unless_empty(rows)


def counts(catalog: Catalog) -> tuple[int, int]:
    """Return the numbers of models and of checkpoints that a reader sees."""
    there = select(func.count()).select_from(models).where(models.c.checkpoints > 0)
    seen = select(func.count()).select_from(checkpoints_table).where(checkpoints_table.c.version.is_not(None))
    with catalog.read() as s:
        return int(s.select(there).scalar_one()), int(s.select(seen).scalar_one())


def _url(file: Path) -> str:
    return f"sqlite:///{file.resolve()}"


def _save_pages(rows: Connection, file: Path) -> None:
    """Copy a SQLite database to a new file, page by page."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE))
    driver: Any = rows.connection.driver_connection
    try:
        with closing(sqlite3.connect(file)) as copy:
            driver.backup(copy)
    except sqlite3.Error as error:
        raise DBAPIError.instance(None, None, error, sqlite3.Error, dialect=rows.dialect) from error


def _close_file(file: Path) -> None:
    """Make the copy one file, which its readers do not write to."""
    with closing(sqlite3.connect(file)) as copy:
        copy.execute("PRAGMA journal_mode=DELETE").fetchall()


def _copy_rows(source: Connection, target: Connection) -> None:
    """Copy all rows from one database to another with the same tables, which nobody has used. Ids that the source has
    given are not given again.
    """
    for table in _MADE_BY_A_START:
        target.execute(delete(table))
    for table in metadata.sorted_tables:
        keys = list(table.primary_key.columns)
        last: tuple[Any, ...] | None = None
        while True:
            page = select(table).order_by(*keys).limit(ROWS_AT_ONCE)
            if last is not None:
                page = page.where(tuple_(*keys) > tuple_(*_literals(keys, last)))
            rows = [dict(row) for row in source.execute(page).mappings()]
            if not rows:
                break
            target.execute(table.insert().inline(), rows)
            last = tuple(rows[-1][key.name] for key in keys)
    for table in metadata.sorted_tables:
        if (column := table.autoincrement_column) is not None and (given := _last_given(source, table, column)):
            _go_on_after(target, table, column, given)


def _literals(keys: Iterable[Column[Any]], values: Iterable[Any]) -> list[Any]:
    return [literal(value, key.type) for key, value in zip(keys, values, strict=True)]


def _last_given(source: Connection, table: Table, column: Column[Any]) -> int:
    """Return the highest id that a table's rows ever had, as far as the database knows; 0 if it never had one."""
    if source.dialect.name == "postgresql":
        asked = text("SELECT pg_sequence_last_value(pg_get_serial_sequence(:name, :column)::regclass)")
        return int(source.execute(asked, {"name": table.name, "column": column.name}).scalar() or 0)
    highest = int(source.execute(select(func.max(column))).scalar() or 0)
    if not table.dialect_options["sqlite"]["autoincrement"]:
        return highest
    asked = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
    return max(highest, int(source.execute(asked, {"name": table.name}).scalar() or 0))


def _go_on_after(target: Connection, table: Table, column: Column[Any], given: int) -> None:
    """Let the next row of a table have a higher id than ``given``."""
    if target.dialect.name == "postgresql":
        setting = text("SELECT setval(pg_get_serial_sequence(:name, :column), :given)")
        target.execute(setting, {"name": table.name, "column": column.name, "given": given})
    elif table.dialect_options["sqlite"]["autoincrement"]:
        target.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
        inserted = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :given)")
        target.execute(inserted, {"name": table.name, "given": given})


def _refuse_unless_empty(connection: Connection) -> None:
    """Raise Conflict if anybody has used the catalog."""
    for table in metadata.sorted_tables:
        if table in _MADE_BY_A_START:
            continue
        if connection.execute(select(literal(1)).select_from(table).limit(1)).first() is not None:
            raise Conflict(f"the database is not empty: it has rows of {table.name}")
