"""Frequent queries, and those of upkeep, go through indexes: their plans have no scan and no sort of many rows."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.catalog import Catalog, events, history, lineage, trash, unfinished
from app.catalog.models import drop_never_used
from app.values.event import EventFilter, EventKind
from tests.catalog.make import MODEL, add, resolve, statements
from tests.catalog.questions import READS, reading

KEPT = timedelta(microseconds=1)
LATER = datetime(2100, 1, 1, tzinfo=UTC)

_IN_ORDER = ("SCAN models USING INDEX", "SCAN events")
"""Walks along an index that end with their page."""

_OF_A_PAGE = ("SCAN value", "SCAN json_each", "SCAN anon_", "SCAN found", "SCAN edges", "SCAN CONSTANT ROW")
"""Scans of a parameter, or of rows that another step found."""


@pytest.fixture
def filled(sqlite_catalog: Catalog) -> Catalog:
    for number in range(10):
        add(sqlite_catalog, run="a", epoch=number, step=number, loss=float(number), metrics={"acc": float(number)})
    for version in (3, 4):
        with sqlite_catalog.write() as w:
            trash.delete_checkpoint(w, MODEL, version, kept=KEPT)
    return sqlite_catalog


def plans(catalog: Catalog, run: Callable[[Catalog], object]) -> list[str]:
    """The steps of the plans of all statements that ``run`` executes, but for those that a page is limited to."""
    with statements(catalog) as seen:
        run(catalog)
    assert seen
    steps: list[str] = []
    with catalog.read() as s:
        for text in seen:
            if text.startswith(("SELECT", "WITH", "DELETE", "UPDATE")):
                plan = s._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (1,) * text.count("?"))
                steps += [step.detail for step in plan]
    return [step for step in steps if not step.startswith((*_IN_ORDER, *_OF_A_PAGE))]


@pytest.mark.parametrize("question", READS)
def test_a_query_is_a_run_through_an_index(filled: Catalog, question: str):
    steps = plans(filled, reading(READS[question]))
    assert not [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step], steps


def test_a_page_of_the_history_sorts_no_more_than_itself(filled: Catalog):
    steps = plans(filled, reading(lambda s: history.history(s, MODEL, limit=3)))
    assert [step for step in steps if "USING INDEX" in step or "USING PRIMARY KEY" in step]
    assert not [step for step in steps if "SCAN checkpoints" in step or "SCAN removed_checkpoints" in step], steps


def test_a_lineage_follows_indexes(filled: Catalog):
    checkpoint = resolve(filled, "latest")
    steps = plans(filled, reading(lambda s: lineage.ancestors(s, checkpoint, None)))
    assert not [step for step in steps if "SCAN lineage" in step or "SCAN checkpoints" in step], steps


def test_what_is_to_be_purged_or_dropped_is_found_by_an_index(filled: Catalog):
    def purge(catalog: Catalog) -> None:
        assert trash.purge(catalog, LATER, lambda: None) == 2
        unfinished.drop(catalog, LATER, lambda: None)
        with catalog.write() as w:
            drop_never_used(w)

    steps = plans(filled, purge)
    assert not [step for step in steps if "SCAN" in step], steps


@pytest.mark.parametrize("about", [(MODEL.namespace, MODEL.name), (MODEL.namespace, None), (None, None)])
@pytest.mark.parametrize("kinds", [{EventKind.ALIAS_MOVED}, {EventKind.ALIAS_MOVED, EventKind.CHECKPOINT_TRASHED}])
def test_events_of_a_rare_kind_are_found_by_an_index(
    filled: Catalog, about: tuple[str | None, str | None], kinds: set[EventKind]
):
    wanted = EventFilter(*about, frozenset(kinds))
    for question in (
        lambda s: events.list_events(s, wanted, 3, 5),
        lambda s: events.events_before(s, wanted, None, 5),
    ):
        steps = [step for step in plans(filled, reading(question)) if "kind" in step]
        assert len(steps) == len(kinds), steps
        assert all("kind=?" in step for step in steps), steps
