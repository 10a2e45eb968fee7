"""Engines for PostgreSQL, and the locks of its writers. See docs/decisions/0032-writers-of-one-namespace-wait.md.

A transaction takes its locks in this order, so that none waits in a circle:

1. the lock of the catalog: shared, or alone for what concerns more than one namespace;
2. the lock of its namespace, if it has one;
3. row locks: of rows that its other locks keep from everybody else, or of one row;
4. the lock of the events, right before the commit.
"""

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

CHANNEL = "stateroom_events"
"""The channel on which PostgreSQL tells waiting servers of new events, at the commit."""

TRUSTED_FOR = 1.0
"""Seconds after its last use in which a connection is used again without asking whether it still works."""

NOTICED = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""Options of libpq: a database server that vanished is noticed after 30 s, and not after the hours that TCP takes."""

_CATALOG_LOCK = 0x53746174
_NAMESPACE_LOCKS = 0x4E616D65
"""The first number of the locks of namespaces. The second one is a checksum of the name: of two namespaces with the
same checksum, one waits for the other.
"""

_EVENT_LOCK = 0x45766E74

_LOCK_ONE = (  # FROM is executed first
    "SELECT pg_advisory_xact_lock(%(namespaces)s::int, %(one)s::int) FROM pg_advisory_xact_lock_shared(%(catalog)s)"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows that a write transaction reads and changes: those of ``namespace``, only its ``own_rows``, or any."""

    namespace: str | None = None
    own_rows: bool = False

    def covers(self, namespace: str) -> bool:
        """Tell whether no other write to the rows of ``namespace`` runs beside this one."""
        return not self.own_rows and self.namespace in {None, namespace}


class Trust:
    """The trust that an idle connection still works, without asking the database. All engines of a catalog share it:
    where one connection is found dead, so may be all, because a database that restarts closes each of them.
    """

    def __init__(self) -> None:
        self._lost_at = float("-inf")

    def end(self) -> None:
        """Distrust every connection whose last use began before now."""
        self._lost_at = time.monotonic()

    def covers(self, began_at: float, ended_at: float) -> bool:
        """Tell whether a connection works whose last use began and ended at these times."""
        return began_at > self._lost_at and time.monotonic() - ended_at < TRUSTED_FOR


def postgresql_engine(
    url: URL, trust: Trust, *, read_only: bool, timeout: int, settings: str = "", **pool: Any
) -> Engine:
    """An engine whose statements wait at most ``timeout`` seconds for a lock. ``settings`` are those of a session."""
    from .round_trips import ReadingCursor, WritingCursor, check  # noqa: PLC0415 - imports the driver of PostgreSQL

    timeouts = f"-c lock_timeout={timeout}s -c idle_in_transaction_session_timeout={timeout}s"
    options = {
        "connect_timeout": 10,
        **NOTICED,
        "options": f"{timeouts} {settings}".strip(),
        "cursor_factory": ReadingCursor if read_only else WritingCursor,
    }
    engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args=options, **pool)  # the cursor sends BEGIN

    @event.listens_for(engine, "checkin")
    def on_checkin(_: object, record: ConnectionPoolEntry) -> None:
        if "taken_at" in record.info:  # else it could not be connected
            record.info["last_use"] = record.info["taken_at"], time.monotonic()

    @event.listens_for(engine, "checkout")
    def on_checkout(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        """Connect again after a restart of the database."""
        last_use = record.info.get("last_use")
        record.info["taken_at"] = time.monotonic()
        if last_use is None or trust.covers(*last_use):
            return
        try:
            check(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            trust.end()
            raise InvalidatePoolError("the database has closed the connection") from error

    @event.listens_for(engine, "handle_error")
    def on_error(failure: ExceptionContext) -> None:
        if failure.is_disconnect:
            trust.end()

    return engine


def lock(connection: Connection, scope: Scope) -> None:
    """Begin a transaction, and wait until no other one concerns the same rows. Its statements then see all committed
    data: at READ COMMITTED each sees the data at its start.
    """
    if scope.namespace is not None:
        one = zlib.crc32(scope.namespace.encode()) - 2**31
        locks = {"catalog": _CATALOG_LOCK, "namespaces": _NAMESPACE_LOCKS, "one": one}
        connection.exec_driver_sql(_LOCK_ONE, locks)
    elif scope.own_rows:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({_CATALOG_LOCK})")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CATALOG_LOCK})")


def lock_events(connection: Connection) -> None:
    """Take the lock of the events until the transaction ends: they are numbered in the order of commits. Its commit
    tells the listeners.
    """
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_EVENT_LOCK}), pg_notify('{CHANNEL}', '')")


@contextmanager
def together(connection: Connection) -> Iterator[None]:
    """Send the statements of the block in one round trip, each with a view of its own. None may return rows.

    The block's end raises their errors.
    """
    driver: Any = connection.connection.driver_connection
    errors = connection.dialect.loaded_dbapi.Error
    try:
        with driver.pipeline():
            yield
    except errors as error:
        raise DBAPIError.instance(None, None, error, errors, dialect=connection.dialect) from error
