"""Queries of compaction, which moves blobs from one pack to another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update

from ..values.checkpoint import Blob
from .catalog import Catalog
from .commit import BATCH
from .lists import each_integer, is_among
from .session import ReadSession, WriteSession
from .tables import blobs, packs


@dataclass(frozen=True, slots=True)
class Move:
    """The move of the blob ``blob_id`` from the pack with the id ``source`` to ``offset`` in another pack."""

    blob_id: int
    source: int
    offset: int


def blobs_of(catalog: Catalog, pack_id: int, namespace: str) -> Iterator[tuple[int, Blob]]:
    """The ids and blobs of a namespace in a pack, in the pack's order, so that related blobs stay together.

    No transaction is open between pages. Blobs that were deleted or moved meanwhile are left out.
    """
    b = blobs.c
    with catalog.read() as s:
        ids = (
            s.select(select(b.id).where(b.pack_id == pack_id, b.namespace == namespace).order_by(b.offset, b.id))
            .scalars()
            .all()
        )
    found = select(b.id, b.digest, packs.c.name, b.offset, b.length, b.crc32, b.blocks).join(
        packs, packs.c.id == b.pack_id
    )
    for start in range(0, len(ids), BATCH):
        page = ids[start : start + BATCH]
        with catalog.read() as s:
            rows = s.select(found.where(is_among(b.id, each_integer(page)), b.pack_id == pack_id)).all()
        there = {row[0]: Blob(*row[1:]) for row in rows}
        yield from ((blob_id, there[blob_id]) for blob_id in page if blob_id in there)


def is_in(s: ReadSession, blob_id: int, pack_id: int) -> bool:
    return s.select(select(blobs.c.id).where(blobs.c.id == blob_id, blobs.c.pack_id == pack_id)).first() is not None


def move(w: WriteSession, pack_id: int, moves: Sequence[Move]) -> None:
    """Point the rows of the blobs to their new places in the sealed pack ``pack_id``. A blob that is no longer in
    the ``source`` of its move stays unchanged.
    """
    moved = update(blobs).where(blobs.c.id == bindparam("blob_id"), blobs.c.pack_id == bindparam("source"))
    w.execute_many(
        moved.values(pack_id=pack_id, offset=bindparam("new_offset")),
        [{"blob_id": one.blob_id, "source": one.source, "new_offset": one.offset} for one in moves],
    )
