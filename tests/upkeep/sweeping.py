"""Helpers of the tests of the sweep."""

from collections.abc import Callable
from datetime import UTC, datetime

from app.catalog.trash import NOT_KEPT, delete_checkpoint
from app.catalog.unused import Moment
from app.retention import Retention
from app.upkeep.fsck import Finding, Fsck
from app.upkeep.sweep import Sweeper, Swept
from tests.ingest.workplace import MODEL, Workplace


def moment_now() -> Moment:
    return Moment.at(datetime.now(UTC), 0)


def sweeper(place: Workplace, grace: float = 0) -> Sweeper:
    return Sweeper(
        place.catalog, place.store, place.folder / "spool", Retention(place.catalog, place.store, NOT_KEPT), grace
    )


def sweep_now(place: Workplace, grace: float = 0, go_on: Callable[[], None] = lambda: None) -> Swept:
    return sweeper(place, grace).sweep(go_on)


def foresee_now(place: Workplace, grace: float = 0) -> Swept:
    return sweeper(place, grace).dry_run()


def delete(place: Workplace, *versions: int) -> None:
    for version in versions:
        with place.catalog.write() as w:
            delete_checkpoint(w, MODEL, version)


def check(place: Workplace, *, read_data: bool = True, mark: bool = False) -> list[Finding]:
    return list(Fsck(place.catalog, place.store, read_data, mark).findings())
