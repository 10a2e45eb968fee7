"""Compaction: copy the live blobs of mostly dead packs to new packs, and remove the old packs.

A new pack holds blobs of one namespace, so that no blob lies beside another namespace's bytes.

A copy costs less than half of the bytes it frees. The order is that of an upload: the new pack's row, its durable
bytes, then the catalog, in short transactions. A crash leaves an abandoned pack, or two packs that each hold some of
the blobs. Only bytes that match their digest are copied. A pack with a damaged blob stays, as the only original. The
blob is marked, so that the next upload with that blob heals it.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from ..catalog import Catalog, moves, packs
from ..catalog.moves import Move
from ..catalog.pace import Pace
from ..catalog.unused import GoOn, PackUse
from ..damage import look_again
from ..errors import StateroomError, StoreError
from ..store import PackStore
from ..store.keys import new_name
from ..store.verified import indexes_of, verified_blocks
from ..values.checkpoint import Blob

_log = logging.getLogger("stateroom.sweep")

MOSTLY_DEAD = 0.5
"""Largest live share of a pack that is worth copying."""

WORTH_BYTES = 1024 * 1024
"""Fewest bytes that one new pack has to free; several old packs may add up to them."""

SHARED_BYTES = 256 * 1024 * 1024
SHARED_PACKS = 1_000
"""Live bytes, and old packs, that fill a group: the next pack begins a new group."""

LEASE_SECONDS = 6 * 60 * 60
"""Longest time for copying one new pack, in seconds."""

MOVES_AT_ONCE = 2_000

Group = tuple[PackUse, ...]


def plan_compaction(uses: Sequence[PackUse], room: int | None = None) -> list[Group]:
    """Group packs of the same namespaces; each group becomes one new pack. Pure. Packs without live bytes are left
    out.

    With ``room`` no new pack is larger than that many bytes. Each group frees more than it takes, so the disk needs
    space for only one. Packs that do not fit wait for a later sweep.
    """
    by_namespace = sorted(uses, key=lambda use: use.namespaces)
    return [group for _, these in groupby(by_namespace, lambda use: use.namespaces) for group in _groups(these, room)]


def is_mostly_dead(use: PackUse) -> bool:
    """Tell whether a pack is worth copying, as far as its own use says."""
    return 0 < use.live < use.size * MOSTLY_DEAD


def _groups(uses: Iterable[PackUse], room: int | None) -> list[Group]:
    groups: list[list[PackUse]] = []
    live = 0
    most = SHARED_BYTES if room is None else min(SHARED_BYTES, room)
    for use in uses:
        if is_mostly_dead(use) and (room is None or use.live <= room):
            if not groups or live + use.live > most or len(groups[-1]) == SHARED_PACKS:
                groups.append([])
                live = 0
            groups[-1].append(use)
            live += use.live
    return [tuple(group) for group in groups if sum(use.size - use.live for use in group) >= WORTH_BYTES]


class _Unreadable(Exception):
    def __init__(self, use: PackUse, blob: Blob, reason: StoreError) -> None:
        self.use = use
        self.blob = blob
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Compacted:
    """The result for a group: packs left alone because they hold damage, number of packs copied, bytes written."""

    damaged: tuple[str, ...]
    packs: int
    nbytes: int


@dataclass(slots=True)
class _Copy:
    """The copy of the live blobs of ``namespace`` in ``group`` to a new pack: their blocks, and their new places."""

    catalog: Catalog
    store: PackStore
    group: Sequence[PackUse]
    namespace: str
    go_on: GoOn
    moves: list[Move] = field(default_factory=list)
    size: int = 0

    def blocks(self) -> Iterator[memoryview]:
        for use in self.group:
            for blob_id, blob in moves.blobs_of(self.catalog, use.id, self.namespace):
                yield from self._blocks_of(use, blob_id, blob)
                self.moves.append(Move(blob_id, use.id, self.size))
                self.size += blob.length

    def _blocks_of(self, use: PackUse, blob_id: int, blob: Blob) -> Iterator[memoryview]:
        blocks = verified_blocks(self.store, blob)
        while True:
            self.go_on()
            try:
                block = next(blocks, None)
            except StoreError as error:
                raise _Unreadable(use, blob, error) from error
            if block is None:
                return
            yield block


def compact(catalog: Catalog, store: PackStore, group: Group, go_on: GoOn) -> Compacted:
    """Copy the live blobs of ``group`` to one new pack for each of its namespaces, and make the old packs abandoned.

    Raises StoreError if a new pack cannot be written, and what ``go_on`` raises; then the old packs stay.
    """
    left, damaged, copied = list(group), [], 0
    for namespace in group[0].namespaces:
        while left:
            try:
                copied += _copy(catalog, store, left, namespace, go_on)
                break
            except _Unreadable as unreadable:
                left.remove(unreadable.use)
                with catalog.read() as s:
                    if not packs.is_sealed(s, unreadable.use.name):
                        continue  # another sweep was faster
                _log.error("pack %s is not compacted: %s", unreadable.use.name, unreadable.reason)
                damaged.append(unreadable.use.name)
                look_again(catalog, store, namespace, [(unreadable.blob, indexes_of(unreadable.blob))])
    return Compacted(tuple(damaged), len(left), copied)


def _copy(catalog: Catalog, store: PackStore, group: Sequence[PackUse], namespace: str, go_on: GoOn) -> int:
    name = new_name()
    with catalog.write_own_rows() as w:
        packs.begin(w, name, LEASE_SECONDS)
    copy = _Copy(catalog, store, group, namespace, go_on)
    try:
        size = store.write(name, copy.blocks())
        pace = Pace(200, MOVES_AT_ONCE)
        for batch in pace.slices(copy.moves):
            with catalog.turn(pace=pace) as w:
                # Seal for each batch: it fails if another process took the lease and the bytes may be gone.
                moves.move(w, packs.seal(w, name, size), batch)
        pace = Pace(20, SHARED_PACKS)
        for old in pace.slices(group):
            with catalog.turn(pace=pace) as w:
                for use in old:
                    packs.finish(w, use.name)  # abandons it if empty; ours too, if another sweep was faster
    finally:
        _finish(catalog, name)
    return size


def _finish(catalog: Catalog, name: str) -> None:
    try:
        with catalog.write() as w:
            packs.finish(w, name)
    except StateroomError as error:
        _log.warning("the lease of pack %s could not be ended, and will expire by itself: %s", name, error)
