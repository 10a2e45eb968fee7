"""The entry point of the catalog: engines, sessions, migration."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection, column, select, table
from sqlalchemy.exc import DBAPIError

from ..errors import StoreError
from ..values.event import NewEvent
from ..values.tracing import step
from . import events, migrate
from .dialect import (
    engines,
    is_read_only,
    is_there,
    lock,
    migrating_engine,
    parse_url,
    read_only,
    translated_errors,
)
from .listener import Listener, SocketListener, tell_listeners
from .pace import Pace
from .postgres import Scope
from .queues import Queues
from .session import ReadSession, WriteSession


class Catalog:
    """All metadata, in the database at ``url`` (``sqlite:///PATH``). Safe to share between threads.

    Without ``durable`` a crash of the machine may lose acknowledged writes; a crash of the process loses none.

    ``on_recorded`` is called with the events of each transaction, after its commit, by the thread that made them.

    Every session raises database failures as StoreError (codes ``catalog-busy``, ``catalog-failed``) or StorageFull.
    """

    def __init__(
        self, url: str, *, durable: bool = True, on_recorded: Callable[[Sequence[NewEvent]], None] = lambda _: None
    ) -> None:
        self._url = parse_url(url)
        self._on_recorded = on_recorded
        self._reader, self._writer = engines(self._url, durable=durable)
        self._queues = Queues()
        self._file = Path(str(self._url.database)) if self._url.get_backend_name() == "sqlite" else None

    def migrate(self) -> None:
        """Migrate an empty or older database to this version's schema, in one transaction."""
        engine = migrating_engine(self._url)
        try:
            with translated_errors():
                migrate.upgrade(engine)
        finally:
            engine.dispose()

    def ping(self) -> None:
        """Raise StoreError unless the database answers and holds a catalog. Never creates a database."""
        if not is_there(self._url):
            raise StoreError(
                "there is no database; run stateroom-server migrate or serve to create it", code="catalog-failed"
            )
        revision = self.revision()
        if revision is None or revision < migrate.REVISION:
            raise StoreError(
                "the database has no catalog of this version: run stateroom-server migrate first", code="catalog-failed"
            )

    def ping_writable(self) -> None:
        """Raise StoreError unless ``ping`` succeeds and the database takes writes: a standby of PostgreSQL does not."""
        self.ping()
        with self.rows() as connection:
            if is_read_only(connection):
                raise read_only()

    def check(self) -> None:
        """Raise StateroomError unless ``ping`` succeeds and the catalog is of this version. Servers that run while a
        newer version migrates the catalog go on, but none of an older version should start.
        """
        self.ping()
        migrate.check_is_known(self.revision() or "")

    @property
    def is_file(self) -> bool:
        """Tell whether the database is a SQLite file."""
        return self._file is not None

    def revision(self) -> str | None:
        """Return the revision of the database's schema; None without one. Never creates a database."""
        if not is_there(self._url):
            return None
        try:
            with self.read() as session:
                found = session.select(select(column("version_num")).select_from(table("alembic_version"))).scalar()
        except DBAPIError:
            return None
        return None if found is None else str(found)

    @contextmanager
    def rows(self) -> Iterator[Connection]:
        """A transaction that sees all rows of one moment, for ``copies``."""
        with translated_errors(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def filling(self) -> Iterator[Connection]:
        """A write transaction that is alone and inserts rows in any order, for ``copies``."""
        engine = migrating_engine(self._url)
        try:
            with translated_errors(), engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    @contextmanager
    def read(self) -> Iterator[ReadSession]:
        with step("catalog.read"), translated_errors(), self._reader.begin() as connection:
            yield ReadSession(connection)

    def write(self, namespace: str | None = None) -> AbstractContextManager[WriteSession]:
        """One transaction, committed at the end and rolled back on any exception. Keep it short: other writers wait.

        With ``namespace`` it reads and changes only what belongs to that namespace, and runs beside writes to others.
        Without, it is alone, and everything it reads is still true when it ends.
        """
        return self._writing(Scope(namespace))

    def write_own_rows(self) -> AbstractContextManager[WriteSession]:
        """As ``write``, beside all but those that are alone. Only for rows that no other write looks at meanwhile, and
        for a row whose change depends on nothing but that row: one, because two could make a circle of waiting writers.
        """
        return self._writing(Scope(own_rows=True))

    @contextmanager
    def _writing(self, scope: Scope) -> Iterator[WriteSession]:
        with (
            step("catalog.write"),
            translated_errors(),
            self._queues.turn(scope.namespace),
            self._writer.begin() as connection,
        ):
            lock(connection, scope)
            session = WriteSession(connection, scope)
            yield session
            events.finish(session)
        if session.recorded:
            self._on_recorded(session.recorded)
            if self._file is not None:
                tell_listeners(self._file)

    def listen(self) -> Listener:
        """Return a listener for new events. Raises StoreError."""
        if self._file is not None:
            return SocketListener(self._file)
        from .notifications import NotificationListener  # noqa: PLC0415 - imports the driver of PostgreSQL

        return NotificationListener(self._url)

    @contextmanager
    def turn(self, namespace: str | None = None, pace: Pace | None = None) -> Iterator[WriteSession]:
        """One write transaction of many, followed by a sleep as long as it took: other writers poll for its locks.

        ``pace`` is told how long it took, so that the next one is as large as it may be.
        """
        with self.write(namespace) as w:
            began = time.monotonic()
            yield w
        took = time.monotonic() - began
        if pace is not None:
            pace.took(took)
        time.sleep(took)
