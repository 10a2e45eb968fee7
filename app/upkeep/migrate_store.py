"""Copying all packs to another store, beside running servers.

A pack never changes, so a copy of it stays right, and a copy that was broken off goes on where it ended. The catalog
names no store, so nothing in it changes: servers that are started with the other store find all packs there.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from ..catalog import Catalog, audit
from ..catalog.audit import PackRow
from ..errors import PackMissing, StoreError
from ..store import PackStore
from ..store.keys import area_of, is_joined, object_name
from ..store.pack_list import Stretch
from ..store.verified import verified_blocks
from ..values.span import Span

_log = logging.getLogger("stateroom.migrate-store")

PIECE = 16 * 1024 * 1024
NOT_THERE = -1

SIDE_BY_SIDE = 4
"""Packs that are copied at once."""


class Readable(Protocol):
    """A store that packs are copied from."""

    def read(self, name: str, span: Span) -> memoryview: ...


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of copying one pack: its bytes (0 if it was there already, or is gone), or what is wrong with it."""

    pack: str
    nbytes: int = 0
    problem: str | None = None


def copy_packs(catalog: Catalog, source: PackStore, target: PackStore) -> Iterator[Copied]:
    """Copy every finished pack that ``target`` does not have, and yield the result of each. Raises StoreError if the
    catalog cannot be read.
    """
    with ThreadPoolExecutor(SIDE_BY_SIDE, "copy") as threads:
        yield from threads.map(
            lambda pack: _copied(catalog, source, target, pack),
            [pack for pack in audit.all_packs(catalog) if pack.sealed],
        )


def _copied(catalog: Catalog, source: PackStore, target: PackStore, pack: PackRow) -> Copied:
    """Copy a pack. Nothing that was in ``target`` before is ever deleted: servers may be using it already."""
    try:
        there = size_in(target, pack.name)
    except StoreError as error:
        return _refused(pack, error.detail)
    if there == pack.size:
        return Copied(pack.name)
    if there != NOT_THERE:
        return _refused(pack, f"the target has {there:,} of its {pack.size:,} bytes; fsck names what is lost there")
    try:
        copy_pack(source, target, pack)
        for row in audit.blobs_in(catalog, pack.id):
            for _ in verified_blocks(target, row.blob):
                pass
    except StoreError as error:
        delete_copy(target, pack.name)
        return _refused(pack, error.detail) if is_there(catalog, pack) else Copied(pack.name)  # it was swept
    if not is_there(catalog, pack):
        delete_copy(target, pack.name)
        return Copied(pack.name)
    return Copied(pack.name, pack.size)


def _refused(pack: PackRow, problem: str) -> Copied:
    _log.error("pack %s was not copied: %s", pack.name, problem)
    return Copied(pack.name, problem=problem)


def delete_copy(target: PackStore, name: str) -> None:
    """Delete a pack that was just written. A failure is only logged."""
    try:
        target.delete(name)
    except StoreError as error:
        _log.error("what was copied of pack %s could not be deleted: %s", name, error)


def copy_pack(source: Readable, target: PackStore, pack: PackRow) -> None:
    """Copy the bytes of a pack, unchecked."""
    spans = [Span(start, min(start + PIECE, pack.size)) for start in range(0, pack.size, PIECE)]
    if not is_joined(pack.name):
        target.write(pack.name, (source.read(pack.name, span) for span in spans))
        return
    stretches = []
    for number, span in enumerate(spans):
        name = object_name(range(number, number + 1))
        target.put(area_of(pack.name), name, source.read(pack.name, span))
        stretches.append(Stretch(name, 0, span.length))
    target.join(pack.name, stretches)


def size_in(store: PackStore, name: str) -> int:
    """Return the size of a pack; NOT_THERE if the store does not have it."""
    try:
        return store.size(name)
    except PackMissing:
        return NOT_THERE


def is_there(catalog: Catalog, pack: PackRow) -> bool:
    """Tell whether the catalog still names the pack."""
    with catalog.read() as s:
        row = audit.packs_in(s, [area_of(pack.name)]).get(area_of(pack.name))
    return row is not None and row.name == pack.name and row.sealed
