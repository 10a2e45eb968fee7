"""The sweep: it frees the bytes that deleted checkpoints and crashed uploads leave, and never bytes in use.

Rows are deleted before bytes, and each row is checked again in the transaction that deletes it. So after a crash, or
two sweeps at once, at worst some work is left for the next sweep. See docs/decisions/0009-what-makes-a-sweep-safe.md.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..catalog import Catalog, deliveries, events, leases, packs, trash, unfinished, unused
from ..catalog.commit import BATCH
from ..catalog.expired import drop_expired
from ..catalog.pace import Pace
from ..catalog.unused import GoOn, Moment
from ..errors import PackMissing, StoreError
from ..retention import Retention
from ..store import PackStore, Room
from .compact import compact, is_mostly_dead, plan_compaction
from .incoming import find_orphans
from .leftovers import LONGEST_COMMIT, remove_abandoned

_log = logging.getLogger("stateroom.sweep")

END_OF_TIME = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of a sweep, or of a dry run.

    ``freed_bytes`` are the bytes of the removed packs and unfinished uploads, less the copied bytes. ``damaged`` are
    mostly dead packs that stay because they hold damage. ``waits_for_backup`` says that packs stay until a backup ends.
    """

    freed_bytes: int = 0
    blobs: int = 0
    packs: int = 0
    compacted_packs: int = 0
    copied_bytes: int = 0
    spooled_uploads: int = 0
    partial_uploads: int = 0
    unfinished_checkpoints: int = 0
    removed_checkpoints: int = 0
    thinned_checkpoints: int = 0
    purged_checkpoints: int = 0
    damaged: tuple[str, ...] = ()
    waits_for_backup: bool = False


@dataclass(frozen=True, slots=True)
class Sweeper:
    """The parts that a sweep works on. Purged bytes stay for ``grace`` seconds; copies fit in ``room`` (None: no
    limit). Events are kept for ``events_keep`` (None: all).
    """

    catalog: Catalog
    store: PackStore
    spool: Path
    retention: Retention
    grace: float
    room: Room | None = None
    events_keep: timedelta | None = None

    def sweep(self, go_on: GoOn, *, empty_trash: bool = False) -> Swept:
        """Remove what rules do not keep, purge what has been in the trash long enough, or all of it, and free what has
        been unused for the grace. ``go_on`` is called every few milliseconds of work. An exception from it ends the
        sweep there, and so does StoreError.
        """
        began = time.monotonic()
        catalog, store = self.catalog, self.store
        moment = Moment.at(datetime.now(UTC), self.grace)
        left = find_orphans(catalog, self.spool, moment, remove=True)
        drop_expired(catalog, moment.now, go_on)
        if self.events_keep is not None:
            _drop_events(catalog, moment.now - self.events_keep, go_on)
        tidied = self.retention.everywhere(go_on)
        purged = trash.purge(catalog, END_OF_TIME if empty_trash else moment.now, go_on)
        broke_off = unfinished.drop(catalog, moment.now - LONGEST_COMMIT, go_on)
        unused.mark(catalog, moment, go_on)
        blobs = unused.drop(catalog, moment, go_on)
        _unseal_empty(catalog, moment, go_on)
        removed, removed_bytes = remove_abandoned(catalog, store, moment, go_on)

        uses = list(unused.usage(catalog, moment, is_mostly_dead))
        groups = plan_compaction(uses, None if self.room is None else self.room.free()[-1].nbytes // 2)
        compacted = copied = 0
        damaged: tuple[str, ...] = ()
        waits = False
        for group in groups:
            if waits := _backup_runs(catalog):  # the old packs would stay beside the new ones
                break
            try:
                done = compact(catalog, store, group, go_on)
            except StoreError as error:
                _log.error("packs could not be compacted, so the old ones are kept: %s", error)
                break
            damaged += done.damaged
            compacted, copied = compacted + done.packs, copied + done.nbytes
            count, nbytes = remove_abandoned(catalog, store, moment, go_on)
            removed, removed_bytes = removed + count, removed_bytes + nbytes

        waits = waits or _backup_runs(catalog)
        swept = Swept(
            freed_bytes=left.nbytes + removed_bytes - copied,
            blobs=blobs,
            packs=removed,
            compacted_packs=compacted,
            copied_bytes=copied,
            spooled_uploads=len(left.spooled),
            partial_uploads=left.partial,
            unfinished_checkpoints=broke_off,
            removed_checkpoints=tidied.removed,
            thinned_checkpoints=tidied.thinned,
            purged_checkpoints=purged,
            damaged=damaged,
            waits_for_backup=waits,
        )
        _log.info("sweep", extra={"fields": {**asdict(swept), "seconds": round(time.monotonic() - began, 6)}})
        return swept

    def dry_run(self, *, empty_trash: bool = False) -> Swept:
        """Return what ``sweep`` would do now, without changes. The bytes of checkpoints that it would remove or thin by
        rules are not counted: those stay for their time in the trash, and for the grace.
        """
        now = datetime.now(UTC)
        until = END_OF_TIME if empty_trash else now
        moment = replace(Moment.at(now, self.grace), purged=until)
        tidied = self.retention.count_due()
        with self.catalog.read() as s:
            broke_off = unfinished.count(s, moment.now - LONGEST_COMMIT)
            purged = trash.count_due(s, until)
            blobs = unused.count(s, moment)
            abandoned = packs.abandoned(s, moment.before)
        left = find_orphans(self.catalog, self.spool, moment, remove=False)
        uses = list(unused.usage(self.catalog, moment, lambda use: use.live == 0 or is_mostly_dead(use)))
        dead = [use for use in uses if use.live == 0]
        groups = plan_compaction(uses)
        compacted = [use for group in groups for use in group]
        copied = sum(use.live for use in compacted)
        gone = sum(use.size for use in (*dead, *compacted)) + _bytes_of(self.store, abandoned)
        return Swept(
            freed_bytes=left.nbytes + gone - copied,
            blobs=blobs,
            packs=len(dead) + len(abandoned) + len(compacted),
            compacted_packs=len(compacted),
            copied_bytes=copied,
            spooled_uploads=len(left.spooled),
            partial_uploads=left.partial,
            unfinished_checkpoints=broke_off,
            removed_checkpoints=tidied.removed,
            thinned_checkpoints=tidied.thinned,
            purged_checkpoints=purged,
        )


def _backup_runs(catalog: Catalog) -> bool:
    with catalog.read() as s:
        return leases.is_backup_running(s)


def _drop_events(catalog: Catalog, before: datetime, go_on: GoOn) -> None:
    for drop in (events.drop_older, deliveries.drop_older):
        drop(catalog, before, go_on)


def _unseal_empty(catalog: Catalog, moment: Moment, go_on: GoOn) -> None:
    pace = Pace(200, BATCH)
    for ids in pace.slices(packs.empty(catalog, moment.before)):
        go_on()
        with catalog.turn(pace=pace) as w:
            packs.unseal(w, ids, moment.before)


def _bytes_of(store: PackStore, names: Sequence[str]) -> int:
    """The bytes of whole packs. Only the sweep itself knows the bytes of interrupted writes."""
    size = 0
    for name in names:
        try:
            size += store.size(name)
        except PackMissing:
            continue
    return size
