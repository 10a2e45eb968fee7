"""Cursors that save round trips to PostgreSQL. Imports the driver, so only a PostgreSQL catalog imports it."""

from typing import Any, ClassVar, Self

from psycopg import Connection, Cursor
from psycopg.pq import TransactionStatus


class WritingCursor(Cursor[Any]):
    """A cursor that begins a transaction in the round trip of its first statement. The driver itself would wait for the
    answer to BEGIN, so it has to think that every statement commits itself (``autocommit``).
    """

    begin: ClassVar = "BEGIN ISOLATION LEVEL READ COMMITTED"

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        if not self._is_first:
            return super().execute(query, params, **options)
        with self.connection.pipeline():
            Cursor(self.connection).execute(self.begin)
            return super().execute(query, params, **options)

    def executemany(self, query: Any, params_seq: Any, *, returning: bool = False) -> None:
        if self._is_first:
            Cursor(self.connection).execute(self.begin)
        super().executemany(query, params_seq, returning=returning)

    @property
    def _is_first(self) -> bool:
        return self.connection.info.transaction_status == TransactionStatus.IDLE


class ReadingCursor(WritingCursor):
    """A cursor whose transactions see one snapshot of the database, and cannot write."""

    begin: ClassVar = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


def check(connection: Connection[Any]) -> None:
    """Raise the driver's error unless the connection works. Begins no transaction."""
    Cursor(connection).execute("")
