"""News of events from PostgreSQL (LISTEN and NOTIFY)."""

import psycopg
from sqlalchemy.engine import URL

from ..errors import StoreError
from .dialect import connect_options
from .postgres import CHANNEL


class NotificationListener:
    """A Listener: a connection to PostgreSQL, which tells of new events. Raises StoreError if there can be none."""

    def __init__(self, url: URL) -> None:
        try:
            self._connection = psycopg.connect(**connect_options(url), autocommit=True)
            self._connection.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            raise StoreError("the catalog's database tells of no events", code="catalog-failed") from error
        self.fd = self._connection.fileno()

    def hear(self) -> bool:
        try:
            self._connection.pgconn.consume_input()
            while self._connection.pgconn.notifies():
                pass
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        self._connection.close()
