"""CRC32s of derived spans: computed once, kept for every later download. The key is the caller's own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select

from ..values.digest import Digest
from .dialect import each_text
from .session import ReadSession, WriteSession
from .tables import blobs, checksums


@dataclass(frozen=True, slots=True)
class Checksum:
    """``digest`` is a blob that the span lies in: with it the checksum goes."""

    key: str
    digest: Digest
    crc32: int


def get(s: ReadSession, namespace: str, keys: Iterable[str]) -> dict[str, int]:
    """Those of ``keys`` that are kept, in one statement."""
    rows = s.select(
        select(checksums.c.key, checksums.c.crc32).where(
            checksums.c.namespace == namespace, checksums.c.key.in_(each_text(keys))
        )
    )
    return {row.key: row.crc32 for row in rows}


def put(w: WriteSession, namespace: str, new: Sequence[Checksum]) -> None:
    """Keep ``new``, as far as their blobs are there still. What is kept already stays: the same bytes have the same
    checksum.
    """
    wanted = each_text({one.digest for one in new})
    there = set(
        w.select(select(blobs.c.digest).where(blobs.c.namespace == namespace, blobs.c.digest.in_(wanted))).scalars()
    )
    rows = [
        {"namespace": namespace, "key": one.key, "digest": one.digest, "crc32": one.crc32}
        for one in new
        if one.digest in there
    ]
    w.insert_or_keep(checksums, rows)


def drop(w: WriteSession, namespace: str, digests: Iterable[Digest]) -> None:
    """Let go of the checksums that were kept for the blobs ``digests``."""
    w.execute(delete(checksums).where(checksums.c.namespace == namespace, checksums.c.digest.in_(each_text(digests))))
