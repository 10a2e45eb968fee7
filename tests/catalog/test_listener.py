"""Listeners: processes that are told of the commits of others."""

import select
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from app.catalog import Catalog, Listener, WriteSession, events
from app.values.event import EventKind
from tests.catalog.make import MODEL, add
from tests.support.scripts import run_script
from tests.support.waiting import LONG_ENOUGH

DIES = """
import os, signal, sys
from app.catalog import Catalog

listener = Catalog(f"sqlite:///{sys.argv[1]}", durable=False).listen()
os.kill(os.getpid(), signal.SIGKILL)
"""


def hears(listener: Listener, seconds: float) -> bool:
    readable, _, _ = select.select([listener.fd], [], [], seconds)
    return bool(readable) and listener.hear()


def _record(w: WriteSession) -> None:
    events.record(w, EventKind.MODEL_CHANGED, MODEL)


def test_every_listener_hears_of_the_commits_of_others_and_of_its_own(catalog: Catalog, database_url: str) -> None:
    with ExitStack() as stack:
        elsewhere = stack.enter_context(closing(Catalog(database_url, durable=False)))
        listeners = [stack.enter_context(closing(each.listen())) for each in (catalog, elsewhere, elsewhere)]
        assert not any(hears(listener, 0) for listener in listeners)
        for committed, writer in enumerate((catalog, elsewhere), 1):
            assert add(writer).version == committed
            assert all(hears(listener, LONG_ENOUGH) for listener in listeners)
            assert not any(hears(listener, 0) for listener in listeners)


def test_a_transaction_without_events_or_without_a_commit_tells_nobody(catalog: Catalog) -> None:
    with closing(catalog.listen()) as listener:
        with catalog.write():
            pass
        with suppress(ZeroDivisionError), catalog.write() as w:
            _record(w)
            raise ZeroDivisionError
        assert not hears(listener, 0)


def test_news_that_nobody_takes_holds_up_no_commit(sqlite_catalog: Catalog) -> None:
    with closing(sqlite_catalog.listen()) as listener:
        for _ in range(1_000):  # far more than a socket's buffer holds
            with sqlite_catalog.write() as w:
                _record(w)
        assert hears(listener, LONG_ENOUGH)
        assert not hears(listener, 0)


def test_sockets_of_dead_processes_are_removed_by_the_next_commit(sqlite_catalog: Catalog, database: Path) -> None:
    folder = database.with_name(f"{database.name}-listeners")
    dead = run_script(DIES, str(database))
    assert dead.returncode == -9, dead.stderr
    with closing(sqlite_catalog.listen()) as listener:
        assert len(list(folder.iterdir())) == 2
        add(sqlite_catalog)
        assert hears(listener, LONG_ENOUGH)
        assert len(list(folder.iterdir())) == 1
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_path_of_the_database_may_be_longer_than_the_address_of_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("f" * 120)
    folder.mkdir()
    with closing(Catalog(f"sqlite:///{folder / 'catalog.db'}", durable=False)) as catalog:
        catalog.migrate()
        with closing(catalog.listen()) as listener:
            add(catalog)
            assert hears(listener, LONG_ENOUGH)
