"""Sessions: one short transaction each. Functions that only read take a ReadSession, which cannot write."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, CursorResult, Delete, Insert, Select, Table, Update

from ..values.event import NewEvent
from . import dialect
from .dialect import insert_or_keep
from .postgres import Scope

Rows = Sequence[dict[str, Any]]
"""Rows as dicts of column names to values, with the same columns in each row."""


T = TypeVar("T")


class ReadSession:
    """A session that sees one snapshot of the catalog. Rows stay inside the catalog; its functions return values."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def select(self, statement: Select[*tuple[Any, ...]], **parameters: object) -> CursorResult[*tuple[Any, ...]]:
        """Run ``statement``. ``parameters`` are the values of its ``bindparam``s, so that frequent statements are
        built only once. Names that the statement does not use are ignored.
        """
        return self._connection.execute(statement, parameters)


class WriteSession(ReadSession):
    """A session that no other write to the rows of its ``scope`` runs beside. It commits when its ``with`` block ends
    without an error, and writes the events that were ``recorded`` meanwhile last of all.
    """

    def __init__(self, connection: Connection, scope: Scope) -> None:
        super().__init__(connection)
        self.scope = scope
        self.recorded: list[NewEvent] = []
        self._postponed: list[tuple[Insert | Update | Delete, Rows | dict[str, Any]]] = []

    def must_cover(self, namespace: str) -> None:
        """Raise ValueError if another write may run beside this one and change the rows of ``namespace``."""
        if not self.scope.covers(namespace):
            raise ValueError(f"a write of {self.scope} may not change the namespace {namespace}")

    def execute(self, statement: Insert | Update | Delete, **parameters: object) -> CursorResult[*tuple[Any, ...]]:
        """Run ``statement``. ``parameters`` are as in ``select``."""
        return self._connection.execute(statement, parameters)

    def postpone(self, statement: Insert | Update | Delete, rows: Rows | None = None) -> None:
        """Run ``statement``, for each of ``rows`` if given, right before the commit and in the same round trip. So
        this session does not see what it changes.
        """
        if rows is None or rows:
            statement = statement.inline() if isinstance(statement, Insert) else statement
            self._postponed.append((statement, rows or {}))

    def together(self) -> AbstractContextManager[None]:
        """Send the statements of the block in one round trip to the database. None of them may return rows."""
        return dialect.together(self._connection)

    def run_postponed(self) -> None:
        postponed, self._postponed = self._postponed, []
        for statement, rows in postponed:
            self._connection.execute(statement, rows)

    def lock_events(self) -> None:
        """Wait until no other transaction is between numbering its events and its end."""
        dialect.lock_events(self._connection)

    def commit(self) -> None:
        """Commit ``together`` with other statements."""
        dialect.commit(self._connection)

    def execute_many(self, statement: Insert | Update | Delete, rows: Rows) -> None:
        """Run ``statement`` once for each of ``rows``, which hold its parameters by name."""
        if rows:
            self._connection.execute(statement, rows)

    def insert(self, table: Table, rows: Rows) -> None:
        if rows:
            self._connection.execute(table.insert().inline(), rows)  # returns nothing, so it may run together

    def insert_or_keep(self, table: Table, rows: Rows) -> None:
        """Insert ``rows``. An existing row with the same unique key stays unchanged."""
        if rows:
            self._connection.execute(insert_or_keep(self._connection, table), rows)

    def insert_missing(self, column: Column[T], rows: Rows) -> Sequence[T]:
        """As ``insert_or_keep``, into the table of ``column``. Return the values of ``column`` in the inserted rows."""
        if not rows:
            return ()
        inserted = insert_or_keep(self._connection, column.table).returning(column)
        return self._connection.execute(inserted, rows).scalars().all()
