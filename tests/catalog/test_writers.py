"""Writers on PostgreSQL: those of a namespace wait for each other, a sweep for all, and none for ever."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from sqlalchemy import delete, text

from app.catalog import (
    Catalog,
    ReadSession,
    WriteSession,
    blobs,
    checkpoints,
    deliveries,
    events,
    leases,
    models,
    packs,
    trash,
    unused,
    webhooks,
)
from app.catalog.commit import commit
from app.catalog.postgres import TRUSTED_FOR
from app.catalog.tables import blobs as blobs_table
from app.catalog.trash import delete_checkpoint
from app.errors import MissingBlobs, StoreError
from app.values.checkpoint import ModelName
from app.values.event import Event, EventFilter, EventKind
from tests.catalog.make import add, begin_pack, count, digest, new_checkpoint
from tests.support.measure import long, measure
from tests.support.postgres import Postgres
from tests.support.waiting import LONG_ENOUGH, assert_soon

VISION, TEXT = ModelName("vision", "resnet50"), ModelName("text", "bert")
Write = Callable[[Catalog], AbstractContextManager[WriteSession]]


def of_vision(catalog: Catalog) -> AbstractContextManager[WriteSession]:
    return catalog.write("vision")


def of_text(catalog: Catalog) -> AbstractContextManager[WriteSession]:
    return catalog.write("text")


def of_own_rows(catalog: Catalog) -> AbstractContextManager[WriteSession]:
    return catalog.write_own_rows()


def of_all(catalog: Catalog) -> AbstractContextManager[WriteSession]:
    return catalog.write()


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    with postgres.borrowed() as borrowed:
        yield borrowed


@pytest.fixture
def servers(url: str) -> Iterator[list[Catalog]]:
    """Three processes' worth of catalogs of one database."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Catalog(url, durable=False))) for _ in range(3)]


def is_waiting(catalog: Catalog) -> bool:
    """Tell whether a writer waits for a lock of another one."""
    waiting = """SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"""
    with catalog.read() as session:
        return session._connection.execute(text(waiting)).first() is not None


def write(catalog: Catalog, scope: Write) -> None:
    with scope(catalog):
        pass


@pytest.mark.parametrize("first", [of_vision, of_text, of_own_rows])
@pytest.mark.parametrize("second", [of_vision, of_text, of_own_rows])
def test_writers_of_different_rows_run_at_once_and_those_of_a_namespace_in_turn(
    servers: list[Catalog], first: Write, second: Write
):
    with ThreadPoolExecutor(1) as pool, first(servers[0]):
        other = pool.submit(write, servers[1], second)
        if first is second is not of_own_rows:
            assert_soon(lambda: is_waiting(servers[2]))
            assert not other.done()
        else:
            other.result()


@pytest.mark.parametrize("other", [of_vision, of_own_rows, of_all])
def test_a_sweep_waits_for_every_writer_and_every_writer_for_it(servers: list[Catalog], other: Write):
    for first, second in ((other, of_all), (of_all, other)):
        with ThreadPoolExecutor(1) as pool:
            with first(servers[0]):
                waiting = pool.submit(write, servers[1], second)
                assert_soon(lambda: is_waiting(servers[2]))
                assert not waiting.done()
            waiting.result()


def test_a_checkpoint_is_committed_while_another_namespace_holds_its_transaction_open(servers: list[Catalog]):
    add(servers[0], VISION)
    with servers[0].write("vision") as w:
        models.set_best(w, VISION, "max:acc")
        for server in servers:  # of the same process, too
            add(server, TEXT)
        assert events.newest(w) == 4
    with servers[1].read() as s:
        assert [(event.id, event.model) for event in all_events(s)] == [
            (1, VISION),
            (2, TEXT),
            (3, TEXT),
            (4, TEXT),
            (5, VISION),
        ]


def test_a_namespace_with_many_writers_leaves_connections_to_the_others(servers: list[Catalog]):
    with ThreadPoolExecutor(20) as pool:
        with servers[0].write("vision"):
            waiting = [pool.submit(write, servers[1], of_vision) for _ in range(20)]
            assert_soon(lambda: is_waiting(servers[2]))
            add(servers[1], TEXT)
            assert not any(one.done() for one in waiting)
        for one in waiting:
            one.result()


def all_events(s: ReadSession) -> tuple[Event, ...]:
    return events.list_events(s, EventFilter(), None, 1000).items


def test_a_reader_that_goes_on_from_the_last_event_misses_none_of_many_namespaces(servers: list[Catalog]):
    names = [ModelName(f"team-{i}", "model") for i in range(6)]
    for name in names[:2]:
        add(servers[0], name)
        with servers[0].write(name.namespace) as w:  # their commits number events in a longer way
            webhooks.add(w, name, "https://example.com", [], None, None)
    seen: list[Event] = []

    def read_on() -> None:
        with servers[2].read() as s:
            seen.extend(events.events_beyond(s, seen[-1].id if seen else 0, 7))

    def write_many(number: int) -> None:
        for _ in range(20):
            add(servers[number % 2], names[number])

    with ThreadPoolExecutor(len(names)) as pool:
        running = [pool.submit(write_many, number) for number in range(len(names))]
        while not all(one.done() for one in running):
            read_on()
        for one in running:
            one.result()
    while len(seen) < count(servers[0], "events"):
        read_on()
    assert [event.id for event in seen] == list(range(1, len(seen) + 1))
    for name in names:
        versions = [e.version for e in seen if e.model == name and e.kind == EventKind.CHECKPOINT_CREATED]
        assert versions == list(range(1, len(versions) + 1))
    assert sum(event.kind == EventKind.CHECKPOINT_CREATED for event in seen) == 122
    with servers[0].read() as s:
        for name in names[:2]:
            (hook,) = webhooks.list_webhooks(s, name)
            told = webhooks.list_deliveries(s, name, hook.id, limit=100).items
            assert [delivery.event for delivery in reversed(told)] == [e.id for e in seen if e.model == name][1:]


@long
def test_writers_sweeps_and_deliveries_at_once_end_without_an_error_and_lose_nothing(servers: list[Catalog]):
    """All that takes locks: commits of shared blobs, small and in batches, deletions, sweeps without a grace, leases,
    webhooks and their deliveries.
    """
    names = [ModelName(namespace, model) for namespace in ("vision", "text") for model in ("a", "b")]
    for name in names:
        add(servers[0], name)
        with servers[0].write(name.namespace) as w:
            webhooks.add(w, name, "https://example.com", [], None, None)
    done = threading.Event()

    def train(number: int) -> None:
        chance, name = random.Random(number), names[number % len(names)]
        catalog = servers[number % 2]
        for i in range(measure(8, 15)):
            shared = [digest(f"shared {chance.randrange(12)}") for _ in range(4)]
            digests = list(dict.fromkeys([*shared, digest(f"{number} {i}")]))
            commit_again(catalog, name, digests)
            with catalog.write(name.namespace) as w:
                delete_checkpoint(w, name, checkpoints.resolve(w, name, "latest").version)

    def commit_again(catalog: Catalog, name: ModelName, digests: list) -> None:
        while True:  # as the server does: with all blobs in the pack, if some are missing
            try:
                commit(catalog, new_checkpoint(name, blobs=digests), begin_pack(catalog, digests))
            except MissingBlobs:
                continue
            return

    def sweep() -> None:
        catalog = servers[2]
        while not done.is_set():
            now = datetime.now(UTC) + 2 * unused.MARGIN
            moment = unused.Moment.at(now, 0)
            trash.purge(catalog, now, lambda: None)
            unused.mark(catalog, moment, lambda: None)
            unused.drop(catalog, moment, lambda: None)
            ids = list(islice(packs.empty(catalog, moment.before), 1000))
            before = datetime.now(UTC) - unused.MARGIN
            with catalog.write() as w:
                packs.unseal(w, ids, moment.before)
                for name in packs.give_up(w, before, packs.abandoned(w, before)):
                    packs.forget(w, name)

    def deliver(number: int) -> None:
        catalog = servers[number]
        while not done.is_set():
            with catalog.write_own_rows() as w:
                leases.take(w, deliveries.LEASE, str(number), 0.001)
            now = datetime.now(UTC)
            with catalog.read() as s:
                messages = [deliveries.next_message(s, id_, now) for id_ in deliveries.due(s, now, 10)]
            for message in filter(None, messages):
                with catalog.write(message.webhook.model.namespace) as w:
                    deliveries.succeeded(w, message, 204)

    with ThreadPoolExecutor(12) as pool:
        beside: list[Future[None]] = [pool.submit(sweep), pool.submit(deliver, 0), pool.submit(deliver, 1)]
        training = [pool.submit(train, number) for number in range(8)]
        try:
            for one in training:
                one.result()
        finally:
            done.set()
        for one in beside:
            one.result()
    with servers[0].read() as s:
        ids = [event.id for event in all_events(s)]
        assert ids == list(range(1, len(ids) + 1))
        for name in names:
            for hook in webhooks.list_webhooks(s, name):
                waiting = [d for d in webhooks.list_deliveries(s, name, hook.id, limit=1000).items if d.attempts == 0]
                assert not waiting or hook.id in deliveries.due(s, datetime.now(UTC), 10)


def test_a_row_that_another_row_needs_is_a_reason_to_try_again(servers: list[Catalog]):
    digests = [digest("a")]
    commit(servers[0], new_checkpoint(VISION, blobs=digests), begin_pack(servers[0], digests))
    with pytest.raises(StoreError) as refused, servers[1].write() as w:
        w.postpone(delete(blobs_table))
    assert refused.value.code == "catalog-busy"
    with servers[0].read() as s:
        assert set(blobs.known(s, "vision", digests)) == set(digests)


def test_a_circle_of_waiting_writers_is_broken_and_one_may_try_again(servers: list[Catalog]):
    for name in ("a", "b"):
        with servers[0].write() as w:
            leases.take(w, name, "nobody", 0)
    together = threading.Barrier(2)

    def take(catalog: Catalog, names: tuple[str, str]) -> str:
        try:
            with catalog.write_own_rows() as w:
                leases.take(w, names[0], "me", 60)
                together.wait()
                leases.take(w, names[1], "me", 60)  # against the rule: one row
        except StoreError as error:
            return error.code
        return "taken"

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(take, servers, (("a", "b"), ("b", "a"))))
    assert sorted(ends) == ["catalog-busy", "taken"]


@pytest.mark.parametrize("scope", [of_text, of_own_rows])
def test_a_write_that_does_not_hold_a_namespace_cannot_change_it(catalog: Catalog, scope: Write):
    add(catalog, VISION)
    with pytest.raises(ValueError, match="vision"), scope(catalog) as w:
        models.set_best(w, VISION, "max:acc")
    with catalog.read() as s:
        assert models.get_model(s, VISION).best == "min:loss"


def test_connections_that_the_database_closed_are_made_anew(url: str):
    with closing(Catalog(url, durable=False)) as catalog, closing(Catalog(url, durable=False)) as other:
        add(catalog, VISION)
        began = datetime.now(UTC)
        with other.write() as w:
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            ended = f"SELECT pg_terminate_backend(pid, {1000 * int(LONG_ENOUGH)}) FROM pg_stat_activity WHERE {others}"
            w._connection.execute(text(ended)).all()
        assert_soon(lambda: datetime.now(UTC) - began > timedelta(seconds=2 * TRUSTED_FOR))
        assert add(catalog, VISION).version == 2
