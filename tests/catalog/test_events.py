"""Events in the catalog: written with the change they tell of, and numbered in the order of commits."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from app.catalog import Catalog, aliases, checkpoints, events, models, retention, tables, tokens
from app.catalog.rows import to_microseconds
from app.catalog.trash import delete_checkpoint, restore
from app.errors import EventsExpired, InvalidRequest
from app.values.actor import Actor, acting_as
from app.values.checkpoint import ModelName
from app.values.event import EventFilter, EventKind, EventPage
from app.values.token import Scope, new_token
from tests.catalog.make import MODEL, NOW, add
from tests.support.postgres import Postgres
from tests.support.waiting import assert_soon

OTHER, TEXT = ModelName("vision", "other"), ModelName("text", "bert")
ALL = EventFilter()


def page(catalog: Catalog, after: int | None = None, wanted: EventFilter = ALL, limit: int = 100) -> EventPage:
    with catalog.read() as session:
        return events.list_events(session, wanted, after, limit)


def test_each_change_is_told_with_who_made_it_and_a_change_that_is_undone_is_not(catalog: Catalog):
    token, _ = new_token("ci", Scope.READ, None, NOW, None)
    with acting_as(Actor("trainer", "10.0.0.7")):
        add(catalog)
        with catalog.write() as w:
            checkpoints.update(w, MODEL, 1, {"acc": 0.5}, {})
            models.set_best(w, MODEL, "max:acc")
            models.set_best(w, MODEL, "max:acc")
            aliases.move(w, MODEL, "prod", 1, None, "trainer")
            aliases.move(w, MODEL, "prod", 1, None, "trainer")
            aliases.move(w, MODEL, "prod", 1, "why", "trainer")
            aliases.remove(w, MODEL, "prod", "trainer")
            checkpoints.pin(w, MODEL, 1, "why")
            checkpoints.unpin(w, MODEL, 1)
            checkpoints.unpin(w, MODEL, 1)
            delete_checkpoint(w, MODEL, 1, kept=timedelta(days=1))
            restore(w, MODEL, 1)
            retention.set_rules(w, MODEL, None)
            delete_checkpoint(w, MODEL, 1)
            models.delete_empty(w, MODEL)
            tokens.add(w, token)
        with suppress(ZeroDivisionError), catalog.write() as w:
            tokens.revoke(w, "ci", NOW)
            1 / 0  # noqa: B018 - ends the transaction
    with catalog.write() as w:
        tokens.revoke(w, "ci", NOW)
        tokens.revoke(w, "ci", NOW)
    found = page(catalog)
    assert [(e.id, e.kind, e.model, e.version, e.alias, dict(e.detail)) for e in found.items] == [
        (1, "checkpoint-created", MODEL, 1, None, {}),
        (2, "checkpoint-changed", MODEL, 1, None, {}),
        (3, "model-changed", MODEL, None, None, {"best": "max:acc"}),
        (4, "alias-moved", MODEL, 1, "prod", {"previous_version": None}),
        (5, "alias-changed", MODEL, 1, "prod", {}),
        (6, "alias-removed", MODEL, 1, "prod", {}),
        (7, "checkpoint-pinned", MODEL, 1, None, {"reason": "why"}),
        (8, "checkpoint-unpinned", MODEL, 1, None, {}),
        (9, "checkpoint-trashed", MODEL, 1, None, {"reason": "deleted"}),
        (10, "checkpoint-restored", MODEL, 1, None, {}),
        (11, "retention-changed", MODEL, None, None, {}),
        (12, "checkpoint-purged", MODEL, 1, None, {"reason": "deleted"}),
        (13, "model-deleted", MODEL, None, None, {}),
        (14, "token-made", None, None, None, {"token": "ci", "scope": "read", "namespace": None}),
        (15, "token-revoked", None, None, None, {"token": "ci"}),
    ]
    assert {(e.by, e.address) for e in found.items[:14]} == {("trainer", "10.0.0.7")}
    assert (found.items[14].by, found.items[14].address) == (None, None)
    assert found.last == 15


def test_pages_go_on_from_the_last_event_whatever_the_reader_wants(catalog: Catalog):
    for model in (MODEL, OTHER, MODEL, OTHER, MODEL):
        add(catalog, model)
    with catalog.write() as w:
        aliases.move(w, MODEL, "prod", 1, None, None)
    one = EventFilter(MODEL.namespace, MODEL.name)
    first = page(catalog, None, one, 2)
    assert ([event.id for event in first.items], first.last) == ([1, 3], 3)
    rest = page(catalog, first.last, one, 2)
    assert ([event.id for event in rest.items], rest.last) == ([5, 6], 6)
    assert page(catalog, rest.last, one) == EventPage((), 6)
    moves = EventFilter(MODEL.namespace, kinds=frozenset({EventKind.ALIAS_MOVED}))
    assert [event.id for event in page(catalog, 0, moves).items] == [6]
    assert page(catalog, 0, EventFilter("elsewhere")) == EventPage((), 6)
    for wanted in (ALL, one, moves):
        assert [event.id for event in page(catalog, 0, wanted).items] == [
            event.id for event in page(catalog).items if wanted.matches(event)
        ]
    with pytest.raises(InvalidRequest) as refused:
        page(catalog, 7)
    assert refused.value.code == "future-event"


def test_a_reader_of_deleted_events_is_told_where_to_go_on_and_the_newest_stays(catalog: Catalog):
    for _ in range(5):
        add(catalog)
    later = datetime.now(UTC) + timedelta(days=1)
    assert events.drop_older(catalog, datetime.now(UTC) - timedelta(days=1), lambda: None) == 0
    with catalog.write() as w:
        w.execute(update(tables.events).where(tables.events.c.id > 3).values(at=to_microseconds(later)))
    assert events.drop_older(catalog, datetime.now(UTC) + timedelta(hours=1), lambda: None) == 3
    with pytest.raises(EventsExpired, match="go on with after=3") as gone:
        page(catalog, 2)
    assert [event.id for event in page(catalog, gone.value.after).items] == [4, 5]
    assert [event.id for event in page(catalog).items] == [4, 5]
    for dropped in (1, 0):
        assert events.drop_older(catalog, later + timedelta(days=1), lambda: None) == dropped
    add(catalog)
    assert [event.id for event in page(catalog, 4).items] == [5, 6]


def test_who_goes_on_from_the_last_event_misses_none_of_transactions_that_end_in_another_order(postgres: Postgres):
    """Writers of two namespaces share only the lock under which events are numbered."""
    url = postgres.database()
    begun, may_end = threading.Event(), threading.Event()

    def begin_first(catalog: Catalog) -> None:
        with catalog.write(MODEL.namespace) as w:
            w.select(select(func.pg_current_xact_id()))
            begun.set()
            may_end.wait()
            events.record(w, EventKind.MODEL_CHANGED, MODEL)

    with closing(Catalog(url)) as catalog, closing(Catalog(url)) as elsewhere, ThreadPoolExecutor(1) as pool:
        first = pool.submit(begin_first, catalog)
        begun.wait()
        with elsewhere.write(TEXT.namespace) as second:
            events.record(second, EventKind.MODEL_CHANGED, TEXT)
            second.lock_events()
            may_end.set()
            assert_soon(lambda: _waits(catalog))
            assert page(catalog, 0) == EventPage((), 0)
        seen = page(elsewhere, 0)
        first.result()
        assert page(catalog, 0).items[: len(seen.items)] == seen.items
        assert [event.model for event in (*seen.items, *page(catalog, seen.last).items)] == [TEXT, MODEL]


def _waits(catalog: Catalog) -> bool:
    with catalog.read() as session:
        waiting = """SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"""
        return session._connection.execute(text(waiting)).first() is not None


def test_two_restores_of_one_backup_give_no_id_twice(database: Path, tmp_path: Path) -> None:
    with closing(Catalog(f"sqlite:///{database}", durable=False)) as backup:
        add(backup)

    def ids_after_a_restore(source: Path, at: datetime) -> tuple[Path, list[int]]:
        restored = tmp_path / f"restored-{len(list(tmp_path.iterdir()))}.db"
        shutil.copy(source, restored)
        with closing(Catalog(f"sqlite:///{restored}", durable=False)) as catalog:
            last = page(catalog).last
            with catalog.write() as w:
                events.begin_anew(w, "20261130T091500Z", at)
            add(catalog)
            return restored, [event.id for event in page(catalog, last).items]

    first, ids = ids_after_a_restore(database, NOW)
    _, others = ids_after_a_restore(database, NOW + timedelta(seconds=1))
    assert len({*ids, *others}) == 4
    assert max(ids) < min(others) < 2**53
    _, without_clock = ids_after_a_restore(first, datetime(1970, 1, 2, tzinfo=UTC))
    assert min(without_clock) > max(ids)


def test_events_of_some_kinds_are_those_of_a_filter_page_by_page_in_either_order(catalog: Catalog):
    kinds = [EventKind.CHECKPOINT_CREATED, EventKind.ALIAS_MOVED, EventKind.CHECKPOINT_TRASHED, EventKind.TOKEN_MADE]
    with catalog.write() as w:
        for number in range(60):
            model = (MODEL, OTHER, TEXT, None)[number % 4]
            events.record(w, kinds[number * number % 7 % 4], model)
    everything = page(catalog).items
    assert len(everything) == 60
    for about in ((None, None), ("vision", None), ("vision", MODEL.name)):
        for some in ({kinds[1]}, {kinds[1], kinds[2]}, {kinds[0], kinds[2]}, set(kinds[1:])):
            wanted = EventFilter(*about, kinds=frozenset(some))
            expected = [event.id for event in everything if wanted.matches(event)]
            assert expected or len(some) == 1
            forward, backward, after, before = [], [], 0, None
            while len(found := page(catalog, after, wanted, 3).items):
                forward += [event.id for event in found]
                after = found[-1].id
            while True:
                with catalog.read() as s:
                    found = events.events_before(s, wanted, before, 3)
                if not found:
                    break
                backward += [event.id for event in found]
                before = found[-1].id
            assert forward == expected == backward[::-1]
