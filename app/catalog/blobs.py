"""Blobs: which are stored, and where. A namespace shares them; no other namespace sees them."""

from collections.abc import Iterable, Sequence

from sqlalchemy import insert, literal, select, update

from ..values.checkpoint import Blob
from ..values.digest import Digest
from .dialect import each_text
from .session import ReadSession, WriteSession
from .tables import blobs, checkpoint_blobs, packs


def known(s: ReadSession, namespace: str, digests: Iterable[Digest]) -> dict[Digest, Blob]:
    """Those of ``digests`` that the namespace holds, in one statement however many they are."""
    rows = s.select(
        select(blobs.c.digest, packs.c.name, blobs.c.offset, blobs.c.length, blobs.c.crc32, blobs.c.blocks)
        .join(packs, packs.c.id == blobs.c.pack_id)
        .where(blobs.c.namespace == namespace, blobs.c.digest.in_(each_text(digests)), packs.c.state == "sealed")
    )
    return {row[0]: Blob(*row) for row in rows}


def insert_new(w: WriteSession, namespace: str, pack_id: int, new: Sequence[Blob]) -> None:
    """Blobs of a sealed pack. Where the namespace holds the same bytes already, that row stays."""
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


def refer(w: WriteSession, checkpoint_id: int, namespace: str, digests: Sequence[Digest]) -> tuple[Digest, ...]:
    """Let the checkpoint refer to the blobs of ``digests``, each named once, so that the database keeps them.

    Returns those that are not there.
    """
    wanted = blobs.c.namespace == namespace, blobs.c.digest.in_(each_text(digests))
    found = w.execute(
        insert(checkpoint_blobs).from_select(
            ["checkpoint_id", "blob_id"], select(literal(checkpoint_id), blobs.c.id).where(*wanted)
        )
    ).rowcount
    w.execute(update(blobs).where(*wanted, blobs.c.unused_since.is_not(None)).values(unused_since=None))
    if found == len(digests):
        return ()
    there = set(w.select(select(blobs.c.digest).where(*wanted)).scalars())
    return tuple(digest for digest in digests if digest not in there)
