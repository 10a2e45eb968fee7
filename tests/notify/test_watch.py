"""Clients that wait for events, and what they cost the catalog."""

import asyncio
import time
from contextlib import closing

import pytest

from app.catalog import Catalog
from app.notify.watch import AT_ONCE, REMEMBERED, SPACING, EventWatch
from app.values.checkpoint import ModelName
from app.values.event import EventFilter, EventPage
from tests.catalog.make import MODEL, add, statements
from tests.support.waiting import LONG_ENOUGH, awaited_soon

OTHER = ModelName("vision", "other")
ONE = EventFilter(MODEL.namespace, MODEL.name)


def test_however_many_wait_there_is_one_look_at_a_time_and_all_hear_of_what_they_want(
    catalog: Catalog, database_url: str
) -> None:
    add(catalog)

    async def wait_all(elsewhere: Catalog) -> tuple[list[EventPage | None], list[str], float]:
        watch = EventWatch(catalog)
        wanted = [ONE, EventFilter(OTHER.namespace, OTHER.name), EventFilter("vision"), EventFilter()]
        with statements(catalog) as seen:
            began = time.monotonic()
            waiting = [asyncio.create_task(watch.beyond(1, wanted[i % 4], 60)) for i in range(1000)]
            quiet = await watch.beyond(1, EventFilter("elsewhere"), 5 * SPACING)
            assert quiet == EventPage((), 1)
            await asyncio.to_thread(add, elsewhere, OTHER)
            heard = await asyncio.gather(*(task for i, task in enumerate(waiting) if i % 4))
            await asyncio.to_thread(add, elsewhere)
            heard += await asyncio.gather(*waiting[::4])
            took = time.monotonic() - began
        watch.close()
        return heard, seen, took

    with closing(Catalog(database_url, durable=False)) as elsewhere:
        heard, seen, took = asyncio.run(wait_all(elsewhere))
    assert [[event.model for event in page.items] for page in heard if page] == [[OTHER]] * 750 + [[MODEL]] * 250
    assert 0 < len(seen) <= took / SPACING + AT_ONCE


def test_a_reader_that_was_away_for_a_moment_is_told_at_once_and_one_that_was_longer_asks_the_catalog(
    catalog: Catalog,
) -> None:
    add(catalog)

    async def come_back() -> None:
        watch = EventWatch(catalog)
        keeps_it_looking = asyncio.create_task(watch.beyond(1, EventFilter("elsewhere"), 60))
        waiting = asyncio.create_task(watch.beyond(1, ONE, LONG_ENOUGH))
        await asyncio.to_thread(add, catalog)
        assert [event.id for event in (await waiting).items] == [2]
        assert [event.id for event in (await watch.beyond(1, ONE, LONG_ENOUGH)).items] == [2]
        assert await watch.beyond(0, ONE, 60) is None
        for _ in range(REMEMBERED // 100):
            await asyncio.to_thread(_record, catalog, 100)
        page = await watch.beyond(2, ONE, 60)
        while page is not None and page.last < 2 + REMEMBERED:
            page = await watch.beyond(page.last, ONE, 60)
        assert await watch.beyond(1, ONE, LONG_ENOUGH) is None
        watch.stop()
        assert await keeps_it_looking == EventPage((), 2 + REMEMBERED)
        assert await watch.beyond(2 + REMEMBERED, ONE, 60) == EventPage((), 2 + REMEMBERED)
        watch.close()

    asyncio.run(come_back())


def _record(catalog: Catalog, count: int) -> None:
    from app.catalog import events
    from app.values.event import EventKind

    with catalog.write() as w:
        for _ in range(count):
            events.record(w, EventKind.MODEL_CHANGED, MODEL)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_listener_that_is_cut_off_is_replaced_by_looks(catalog: Catalog, database_url: str) -> None:
    add(catalog)

    async def be_cut_off() -> EventPage | None:
        watch = EventWatch(catalog)

        async def listens() -> bool:
            assert await watch.beyond(1, ONE, 2 * SPACING) == EventPage((), 1)
            return watch.is_listening

        await awaited_soon(listens)
        listeners = "datname = current_database() AND query = 'LISTEN stateroom_events'"
        cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {listeners}"
        waiting = asyncio.create_task(watch.beyond(1, ONE, LONG_ENOUGH))
        with catalog.write() as w:
            w._connection.exec_driver_sql(cut)
        await asyncio.to_thread(add, catalog)
        page = await waiting
        watch.close()
        return page

    page = asyncio.run(be_cut_off())
    assert page is not None
    assert [event.id for event in page.items] == [2]
