"""The record of refused tokens."""

import asyncio

from app.catalog import Catalog, events
from app.notify.refusals import MOST, Refusal, Refusals
from app.values.event import EventFilter


def test_a_flood_of_refusals_is_counted_and_takes_few_rows(catalog: Catalog) -> None:
    async def flood() -> None:
        refusals = Refusals(catalog)
        for number in range(10_000):
            refusals.note(Refusal("10.0.0.7", "trainer", "too small a scope"))
            refusals.note(Refusal(f"10.1.{number // 256}.{number % 256}", None, "not valid"))
        refusals.close()
        refusals.close()

    asyncio.run(flood())
    with catalog.read() as session:
        found = events.list_events(session, EventFilter(), None, 1000).items
    assert len(found) == MOST
    assert sum(event.detail["count"] for event in found) == 20_000
    first = found[0]
    assert (first.kind, first.by, first.address, first.model) == ("token-refused", "trainer", "10.0.0.7", None)
    assert first.detail == {"reason": "too small a scope", "count": 10_000}
    assert found[-1].detail["reason"] == "other refusals"
