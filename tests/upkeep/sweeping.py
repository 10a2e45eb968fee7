"""Helpers of the tests of the sweep."""

from collections.abc import Callable
from datetime import UTC, datetime

from app.catalog import checkpoints
from app.catalog.unused import Moment
from app.upkeep.fsck import Finding, Fsck
from app.upkeep.incoming import Incoming
from app.upkeep.sweep import Swept, dry_run, sweep
from tests.ingest.workplace import HOLDER, MODEL, Workplace


def incoming(place: Workplace) -> Incoming:
    return Incoming(place.folder / "spool", place.folder / "partial", HOLDER)


def moment_now() -> Moment:
    return Moment.at(datetime.now(UTC), 0)


def sweep_now(place: Workplace, grace: float = 0, go_on: Callable[[], None] = lambda: None) -> Swept:
    return sweep(place.catalog, place.store, incoming(place), grace, go_on)


def foresee_now(place: Workplace, grace: float = 0) -> Swept:
    return dry_run(place.catalog, place.store, incoming(place), grace)


def delete(place: Workplace, *versions: int) -> None:
    for version in versions:
        with place.catalog.write() as w:
            checkpoints.delete(w, MODEL, version)


def check(place: Workplace, *, read_data: bool = True, mark: bool = False) -> list[Finding]:
    return list(Fsck(place.catalog, place.store, read_data, mark).findings())
