"""Sessions: one short transaction each. What only reads takes a ReadSession, and cannot write with it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Delete, Insert, Select, Table, Update

from .dialect import insert_or_keep

Rows = Sequence[dict[str, Any]]
"""Column names to values; the same columns in each."""


class ReadSession:
    """One moment of the catalog. Rows stay inside the catalog; its functions give values."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def select(self, statement: Select[*tuple[Any, ...]], **parameters: object) -> CursorResult[*tuple[Any, ...]]:
        """``parameters`` are the values of its ``bindparam``s: what every request asks is put together only once.
        One that the statement has not is left out.
        """
        return self._connection.execute(statement, parameters)


class WriteSession(ReadSession):
    """Holds the write lock; what it wrote is kept when its ``with`` block ends without an error."""

    def execute(self, statement: Insert | Update | Delete) -> CursorResult[*tuple[Any, ...]]:
        return self._connection.execute(statement)

    def execute_many(self, statement: Update, rows: Rows) -> None:
        """Once for each of ``rows``, which name its parameters."""
        if rows:
            self._connection.execute(statement, rows)

    def insert(self, table: Table, rows: Rows) -> None:
        if rows:
            self._connection.execute(table.insert(), rows)

    def insert_or_keep(self, table: Table, rows: Rows) -> None:
        """Where a row with the same unique key exists, that one stays as it is."""
        if rows:
            self._connection.execute(insert_or_keep(self._connection, table), rows)
