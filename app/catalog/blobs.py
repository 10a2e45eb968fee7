"""The stored blobs and their places. All models of a namespace share them; other namespaces do not see them.

A blob is identified by its digest and its length: a row with another length is a different blob.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Select, Text, bindparam, insert, select, update

from ..values.checkpoint import Blob
from ..values.digest import Digest
from . import namespaces
from .lists import as_integers, as_texts, each_integer, each_text, is_among
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import blobs, checkpoint_blobs, packs

_DIGESTS = (
    blobs.c.namespace == bindparam("namespace"),
    is_among(blobs.c.digest, each_text(bindparam("digests", type_=Text))),
)
_IDS = is_among(blobs.c.id, each_integer(bindparam("ids", type_=Text)))
_PLACED: Select[*tuple[Any, ...]] = (
    select(blobs.c.digest, packs.c.name, blobs.c.offset, blobs.c.length, blobs.c.crc32, blobs.c.blocks)
    .join(packs, packs.c.id == blobs.c.pack_id)
    .where(*_DIGESTS, packs.c.state == "sealed")
)
_UNDAMAGED = _PLACED.where(blobs.c.damaged_at.is_(None))
_TO_REFER = select(blobs.c.id, blobs.c.digest, blobs.c.length, blobs.c.unused_since).where(
    *_DIGESTS, blobs.c.damaged_at.is_(None)
)
_REFER = insert(checkpoint_blobs).from_select(
    ["checkpoint_id", "blob_id"], select(bindparam("checkpoint", type_=BigInteger), blobs.c.id).where(_IDS)
)
_USE = update(blobs).where(_IDS, blobs.c.unused_since.is_not(None)).values(unused_since=None)


def known(s: ReadSession, namespace: str, digests: Iterable[Digest]) -> dict[Digest, Blob]:
    """The blobs of ``digests`` that the namespace holds, damaged ones too. One statement for any number of digests."""
    return {row[0]: Blob(*row) for row in s.select(_PLACED, namespace=namespace, digests=as_texts(digests))}


def present(s: ReadSession, namespace: str, digests: Iterable[Digest]) -> set[Digest]:
    """Return the ``digests`` that the namespace has a row for, whatever has become of their packs. One statement."""
    rows = select(blobs.c.digest).where(blobs.c.namespace == namespace, is_among(blobs.c.digest, each_text(digests)))
    return set(s.select(rows).scalars())


def stored(s: ReadSession, namespace: str, lengths: Mapping[Digest, int]) -> dict[Digest, Blob]:
    """The undamaged blobs of these digests and lengths, which an upload need not send again."""
    rows = s.select(_UNDAMAGED, namespace=namespace, digests=as_texts(lengths))
    return {row[0]: Blob(*row) for row in rows if row.length == lengths[row[0]]}


def insert_new(w: WriteSession, namespace: str, pack_id: int, new: Sequence[Blob]) -> None:
    """Insert the blobs of a sealed pack, as ``insert_uncounted`` does, and count their bytes.

    Raises QuotaExceeded if the namespace grows beyond its quota.
    """
    namespaces.count(w, namespace, stored_bytes=insert_uncounted(w, namespace, pack_id, new))


def insert_uncounted(w: WriteSession, namespace: str, pack_id: int, new: Sequence[Blob]) -> int:
    """Insert the blobs of a sealed pack, whose bytes were checked against their digests. Return the bytes by which the
    namespace grew, for the same transaction to count.

    An existing row of a blob stays, unless the blob is marked as damaged or the row has another length and so is wrong.
    Then the blob is healed: the row gets the new place, for all checkpoints that refer to the blob, and the bytes at
    the old place are unused.
    """
    w.must_cover(namespace)
    inserted = w.insert_missing(
        blobs.c.length,
        [
            {
                "namespace": namespace,
                "digest": blob.digest,
                "pack_id": pack_id,
                "offset": blob.offset,
                "length": blob.length,
                "crc32": blob.crc32,
                "blocks": blob.blocks,
            }
            for blob in new
        ],
    )
    healed = _heal(w, namespace, pack_id, new) if len(inserted) < len(new) else 0
    return int(sum(inserted)) + healed


def _heal(w: WriteSession, namespace: str, pack_id: int, new: Sequence[Blob]) -> int:
    """Give the blobs of ``new`` that are damaged, or have a wrong length, their new places. Return the bytes by which
    the namespace grew.
    """
    b, lengths = blobs.c, {blob.digest: blob.length for blob in new}
    there = w.select(
        select(b.digest, b.length, b.damaged_at).where(b.namespace == namespace, is_among(b.digest, each_text(lengths)))
    ).all()
    hurt = {row.digest for row in there if row.damaged_at is not None or row.length != lengths[row.digest]}
    w.execute_many(
        update(blobs)
        .where(b.namespace == namespace, b.digest == bindparam("name"))
        .values(
            pack_id=pack_id,
            offset=bindparam("new_offset"),
            length=bindparam("new_length"),
            crc32=bindparam("new_crc32"),
            blocks=bindparam("new_blocks"),
            damaged_at=None,
            healed_at=to_microseconds(datetime.now(UTC)),
        ),
        [
            {
                "name": blob.digest,
                "new_offset": blob.offset,
                "new_length": blob.length,
                "new_crc32": blob.crc32,
                "new_blocks": blob.blocks,
            }
            for blob in new
            if blob.digest in hurt
        ],
    )
    return sum(lengths[row.digest] - row.length for row in there)


def keep(w: WriteSession, namespace: str, lengths: Mapping[Digest, int]) -> tuple[Digest, ...]:
    """Let the grace of the blobs of these digests and lengths begin anew, as far as no checkpoint refers to them.

    Returns the digests of blobs that are missing or marked as damaged.
    """
    w.must_cover(namespace)
    rows = w.select(
        select(blobs.c.id, blobs.c.digest, blobs.c.length).where(
            blobs.c.namespace == namespace, is_among(blobs.c.digest, each_text(lengths)), blobs.c.damaged_at.is_(None)
        )
    ).all()
    there = {row.digest: row.id for row in rows if lengths[row.digest] == row.length}
    these = is_among(blobs.c.id, each_integer(there.values()))
    w.execute(update(blobs).where(these, blobs.c.unused_since.is_not(None)).values(unused_since=None))
    return tuple(digest for digest in lengths if digest not in there)


def refer(w: WriteSession, checkpoint_id: int, namespace: str, lengths: Mapping[Digest, int]) -> tuple[Digest, ...]:
    """Make the checkpoint refer to the blobs of these digests and lengths, so that the database keeps them.

    Returns the digests of blobs that are missing or marked as damaged.
    """
    w.must_cover(namespace)
    rows = w.select(_TO_REFER, namespace=namespace, digests=as_texts(lengths)).all()
    there = {row.digest: row.id for row in rows if lengths[row.digest] == row.length}
    ids = as_integers(there.values())
    w.postpone(_REFER, [{"checkpoint": checkpoint_id, "ids": ids}])
    if any(row.unused_since is not None for row in rows):
        w.postpone(_USE, [{"ids": ids}])
    return tuple(digest for digest in lengths if digest not in there)
