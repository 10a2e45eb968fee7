"""What a crash leaves behind.

An upload's pack has a row from before its first byte until its commit, so every byte without an owner is found by a
query; a spooled file is locked for as long as its process lives.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice

from ..catalog import Catalog, checkpoints, leases, packs
from ..catalog.unused import GoOn, Moment
from ..errors import StoreError
from ..store import PackStore
from .sweep_lease import SWEEP

_log = logging.getLogger("stateroom.sweep")

LONGEST_COMMIT = timedelta(days=1)
"""Far more than passes between the first row of a checkpoint and its version."""

PACKS_AT_ONCE = 100
"""Packs whose rows go in one transaction."""


def recover(catalog: Catalog, store: PackStore, moment: Moment, *, alone: bool) -> None:
    """Clean up before any upload arrives.

    ``alone`` says that no other server shares the catalog: then
    nobody is at work on anything, so that every lease is over, and every commit. Blobs that a crashed commit has left
    are the sweep's, with those of deleted checkpoints: it knows what grace they have.
    """
    if alone:
        with catalog.write() as w:
            packs.finish_all(w)
            leases.give_back(w, SWEEP)
            checkpoints.drop_unfinished(w)
    remove_abandoned(catalog, store, moment, lambda: None)


def remove_abandoned(catalog: Catalog, store: PackStore, moment: Moment, go_on: GoOn) -> tuple[int, int]:
    """Remove the packs that nobody writes any more; how many, and how many bytes that was.

    Bytes go before the row that tells of them, so a crash in here is made good by the next time.
    """
    with catalog.write() as w:
        names = iter(packs.give_up(w, moment.before))
    count = freed = 0
    while batch := list(islice(names, PACKS_AT_ONCE)):
        go_on()
        deleted = list(_delete(store, batch))
        with catalog.turn() as w:
            for name, size in deleted:
                count, freed = count + packs.forget(w, name), freed + size
    return count, freed


def _delete(store: PackStore, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Those that could be deleted. One that cannot must not keep the others."""
    for name in names:
        try:
            yield name, store.delete(name)
        except StoreError as error:
            _log.error("pack %s could not be deleted: %s", name, error)
