"""Removal of the remains of a crash.

An upload's pack has a row from before its first byte until its commit, so a query finds all bytes without an owner. A
spool file is locked as long as its process lives.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta

from ..catalog import Catalog, deliveries, leases, packs, unfinished
from ..catalog.pace import Pace
from ..catalog.unused import GoOn, Moment
from ..errors import StoreError
from ..store import PackStore
from .sweep_lease import SWEEP

_log = logging.getLogger("stateroom.sweep")

LONGEST_COMMIT = timedelta(days=1)
"""Upper bound, by far, for the time between the first row of a checkpoint and its version."""

PACKS_AT_ONCE = 500
"""Most packs whose rows are deleted in one transaction."""


def recover(catalog: Catalog, store: PackStore, moment: Moment, *, alone: bool) -> None:
    """Clean up before any upload arrives.

    ``alone`` says that no other server shares the catalog. Then no work is running, so all leases and commits are
    over. The blobs of a crashed commit are left to the sweep, like the blobs of deleted checkpoints, because the sweep
    knows their grace.
    """
    if alone:
        with catalog.write() as w:
            packs.finish_all(w)
            leases.give_back(w, SWEEP)
            leases.give_back(w, deliveries.LEASE)
        unfinished.drop(catalog, None, lambda: None)
    remove_abandoned(catalog, store, moment, lambda: None)


def remove_abandoned(catalog: Catalog, store: PackStore, moment: Moment, go_on: GoOn) -> tuple[int, int]:
    """Remove abandoned packs, and return their number and their bytes. While a backup runs, remove none.

    Bytes are deleted before their row, so the next run completes a run that crashed. A backup takes its lease before
    it copies the catalog: packs that are given up here were abandoned before, so the copy does not refer to them.
    """
    with catalog.read() as s:
        names = packs.abandoned(s, moment.before)
    count = freed = 0
    pace = Pace(50, PACKS_AT_ONCE)
    for batch in pace.slices(names):
        go_on()
        with catalog.turn() as w:
            given_up = () if leases.is_backup_running(w) else packs.give_up(w, moment.before, batch)
        sizes = dict(_delete(store, given_up, go_on))
        with catalog.turn(pace=pace) as w:
            count += len(packs.forget_all(w, list(sizes)))
        freed += sum(sizes.values())
    return count, freed


def _delete(store: PackStore, names: Sequence[str], go_on: GoOn) -> Iterator[tuple[str, int]]:
    """Delete packs, and yield names and sizes of the deleted ones. A failure does not stop the others."""
    for name in names:
        go_on()
        try:
            yield name, store.delete(name)
        except StoreError as error:
            _log.error("pack %s could not be deleted: %s", name, error)
