"""On PostgreSQL, too, no frequent query has to read a whole table that grows.

Tables of a test are so small that PostgreSQL would rather read them whole, or join them by reading both. So that is
forbidden to it: where it reads one whole nevertheless, no index would serve a large table either. A walk along an index
is no reading of the whole if a limit ends it.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import event

from app.catalog import Catalog, checkpoints, events, history, lineage
from app.values.event import EventFilter, EventKind
from tests.catalog.make import MODEL, add
from tests.catalog.questions import READS, reading

QUESTIONS = {
    **READS,
    "latest": lambda s: checkpoints.resolve(s, MODEL, "latest", None),
    "a page of the history": lambda s: history.history(s, MODEL, limit=3),
    "the ancestors": lambda s: lineage.ancestors(s, checkpoints.resolve(s, MODEL, "latest", None), None),
    "the events of a kind": lambda s: events.list_events(s, _of_kind(MODEL.namespace, MODEL.name), 3, 5),
    "the events of a kind in a namespace": lambda s: events.list_events(s, _of_kind(MODEL.namespace), 3, 5),
    "the last events of a kind": lambda s: events.events_before(s, _of_kind(), None, 5),
}


def _of_kind(*about: str) -> EventFilter:
    return EventFilter(*about, kinds=frozenset({EventKind.ALIAS_MOVED, EventKind.CHECKPOINT_TRASHED}))


@pytest.fixture
def filled(request: pytest.FixtureRequest) -> Iterator[Catalog]:
    with request.getfixturevalue("postgres").borrowed() as url, closing(Catalog(url, durable=False)) as catalog:
        for number in range(10):
            add(catalog, run="a", epoch=number, step=number, loss=float(number), metrics={"acc": float(number)})
        yield catalog


def plans(catalog: Catalog, question: Any) -> list[dict[str, Any]]:
    """The plans of all statements that ``question`` executes, made where no table may be read whole."""
    seen: list[tuple[str, Any]] = []

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(catalog._reader, "before_cursor_execute", listen)
    try:
        reading(question)(catalog)
    finally:
        event.remove(catalog._reader, "before_cursor_execute", listen)
    assert seen
    with catalog.read() as s:
        for way in ("seqscan", "hashjoin", "mergejoin"):
            s._connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        explained = [
            s._connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {text}", parameters).scalar_one()
            for text, parameters in seen
        ]
    return [each[0]["Plan"] for each in explained]


def whole_tables(plan: dict[str, Any], *, is_limited: bool = False) -> Iterator[str]:
    """The tables that a plan reads from the first row to the last."""
    is_limited = is_limited or plan["Node Type"] == "Limit"
    is_walk = plan["Node Type"] in {"Index Scan", "Index Only Scan"} and "Index Cond" not in plan
    if plan["Node Type"] == "Seq Scan" or (is_walk and not is_limited):
        yield plan["Relation Name"]
    for step in plan.get("Plans", []):
        # What is sorted or joined by a hash is read whole before the limit.
        ends = plan["Node Type"] in {"Sort", "Hash", "Aggregate"}
        yield from whole_tables(step, is_limited=is_limited and not ends)


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_query_reads_a_whole_table(filled: Catalog, question: str) -> None:
    found = plans(filled, QUESTIONS[question])
    assert not [table for plan in found for table in whole_tables(plan)], found
