"""Frequent questions to a catalog, whose plans are tested on each database."""

from collections.abc import Callable

from app.catalog import Catalog, ReadSession, aliases, curves, events
from app.catalog.audit import packs_in
from app.catalog.listing import Listing, list_checkpoints
from app.catalog.models import get_model
from app.catalog.overview import list_overviews, overview_of, written_bytes
from app.catalog.trash import list_trash
from app.values.event import EventFilter
from tests.catalog.make import MODEL


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
    "the trash": lambda s: list_trash(s, MODEL, limit=3),
    "packs by name": lambda s: packs_in(s, ["a" * 32, "b" * 32]),
}


def _name() -> tuple[str, str]:
    return MODEL.namespace, MODEL.name
