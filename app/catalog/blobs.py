"""Blobs: which are stored, and where. A namespace shares them; no other namespace sees them.

A blob is its digest and its length: a row of another length is no such blob, whoever asks.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, bindparam, insert, literal, select, update

from ..values.checkpoint import Blob
from ..values.digest import Digest
from .dialect import each_integer, each_text
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import blobs, checkpoint_blobs, packs


def known(s: ReadSession, namespace: str, digests: Iterable[Digest]) -> dict[Digest, Blob]:
    """Those of ``digests`` that the namespace holds, damaged ones too, in one statement however many they are."""
    return {row[0]: Blob(*row) for row in s.select(_placed(namespace, digests))}


def _placed(namespace: str, digests: Iterable[Digest]) -> Select[*tuple[Any, ...]]:
    return (
        select(blobs.c.digest, packs.c.name, blobs.c.offset, blobs.c.length, blobs.c.crc32, blobs.c.blocks)
        .join(packs, packs.c.id == blobs.c.pack_id)
        .where(blobs.c.namespace == namespace, blobs.c.digest.in_(each_text(digests)), packs.c.state == "sealed")
    )


def stored(s: ReadSession, namespace: str, lengths: Mapping[Digest, int]) -> dict[Digest, Blob]:
    """The blobs of these digests and lengths whose bytes an upload need not bring again."""
    rows = s.select(_placed(namespace, lengths).where(blobs.c.damaged_at.is_(None)))
    return {row[0]: Blob(*row) for row in rows if row.length == lengths[row[0]]}


def insert_new(w: WriteSession, namespace: str, pack_id: int, new: Sequence[Blob]) -> None:
    """Blobs of a sealed pack, whose bytes were seen to match their digests.

    Where the namespace holds a blob already, that row stays, unless the blob is marked as damaged, or its row is of
    another length and so cannot be right. Then it is healed: its place is the new one, for all checkpoints that refer
    to it, and what lies at the old one is nobody's any more.
    """
    b, lengths = blobs.c, {blob.digest: blob.length for blob in new}
    there = w.select(
        select(b.digest, b.length, b.damaged_at).where(b.namespace == namespace, b.digest.in_(each_text(lengths)))
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
    w.insert_or_keep(
        blobs,
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


def refer(w: WriteSession, checkpoint_id: int, namespace: str, lengths: Mapping[Digest, int]) -> tuple[Digest, ...]:
    """Let the checkpoint refer to the blobs of these digests and lengths, so that the database keeps them.

    Returns the digests of those that are not there, or are marked as damaged.
    """
    rows = w.select(
        select(blobs.c.id, blobs.c.digest, blobs.c.length).where(
            blobs.c.namespace == namespace, blobs.c.digest.in_(each_text(lengths)), blobs.c.damaged_at.is_(None)
        )
    ).all()
    there = {digest: blob_id for blob_id, digest, length in rows if lengths[digest] == length}
    these = blobs.c.id.in_(each_integer(there.values()))
    w.execute(
        insert(checkpoint_blobs).from_select(
            ["checkpoint_id", "blob_id"], select(literal(checkpoint_id), blobs.c.id).where(these)
        )
    )
    w.execute(update(blobs).where(these, blobs.c.unused_since.is_not(None)).values(unused_since=None))
    return tuple(digest for digest in lengths if digest not in there)
