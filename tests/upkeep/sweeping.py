"""What tests of the sweep do again and again."""

from collections.abc import Callable

from app.catalog import checkpoints
from app.upkeep.fsck import Finding, Fsck
from app.upkeep.incoming import Incoming
from app.upkeep.sweep import Swept, foresee, sweep
from tests.ingest.workplace import MODEL, Workplace


def sweep_now(place: Workplace, grace: float = 0, go_on: Callable[[], None] = lambda: None) -> Swept:
    return sweep(place.catalog, place.store, Incoming(place.folder / "spool", place.folder / "partial"), grace, go_on)


def foresee_now(place: Workplace, grace: float = 0) -> Swept:
    return foresee(place.catalog, place.store, Incoming(place.folder / "spool", place.folder / "partial"), grace)


def delete(place: Workplace, *versions: int) -> None:
    for version in versions:
        with place.catalog.write() as w:
            checkpoints.delete(w, MODEL, version)


def check(place: Workplace, *, read_data: bool = True, mark: bool = False) -> list[Finding]:
    return list(Fsck(place.catalog, place.store, read_data, mark).findings())
