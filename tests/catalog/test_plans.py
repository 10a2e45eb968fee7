"""Frequent queries, and those of upkeep, go through indexes: their plans have no scan and no sort of many rows."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.catalog import Catalog, ReadSession, aliases, curves, events, history, lineage, trash, unfinished
from app.catalog.audit import packs_in
from app.catalog.listing import Listing, list_checkpoints
from app.catalog.models import drop_never_used, get_model
from app.catalog.overview import list_overviews, overview_of, written_bytes
from app.values.event import EventFilter
from tests.catalog.make import MODEL, add, resolve, statements

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


def reading(question: Callable[[ReadSession], object]) -> Callable[[Catalog], object]:
    def run(catalog: Catalog) -> object:
        with catalog.read() as s:
            return question(s)

    return run


READS: dict[str, Callable[[ReadSession], object]] = {
    "the overview": list_overviews,
    "the overview of one": lambda s: overview_of(s, get_model(s, MODEL)),
    "the bytes written": lambda s: written_bytes(s, get_model(s, MODEL)),
    "the runs": lambda s: curves.list_runs(s, get_model(s, MODEL)),
    "a page": lambda s: list_checkpoints(s, MODEL, Listing(limit=3)),
    "a page of a run": lambda s: list_checkpoints(s, MODEL, Listing(run="a", limit=3)),
    "the aliases": lambda s: aliases.list_aliases(s, MODEL),
    "the newest event": events.newest,
    "the events of a model": lambda s: events.list_events(s, EventFilter(*_name()), 0, 3),
    "the trash": lambda s: trash.list_trash(s, MODEL, limit=3),
    "packs by name": lambda s: packs_in(s, ["a" * 32, "b" * 32]),
}


def _name() -> tuple[str, str]:
    return MODEL.namespace, MODEL.name


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
