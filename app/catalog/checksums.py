"""CRC32s of derived spans: computed once, kept for every later download. The caller chooses the key."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select

from ..values.digest import Digest
from .blobs import present
from .lists import each_text, is_among
from .session import ReadSession, WriteSession
from .tables import checksums


@dataclass(frozen=True, slots=True)
class Checksum:
    """The CRC32 of a span. ``digest`` is a blob that contains the span; the checksum is deleted with that blob."""

    key: str
    digest: Digest
    crc32: int


def get(s: ReadSession, namespace: str, keys: Iterable[str]) -> dict[str, int]:
    """The stored checksums of ``keys``, in one statement."""
    rows = s.select(
        select(checksums.c.key, checksums.c.crc32).where(
            checksums.c.namespace == namespace, is_among(checksums.c.key, each_text(keys))
        )
    )
    return {row.key: row.crc32 for row in rows}


def put(w: WriteSession, namespace: str, new: Sequence[Checksum]) -> None:
    """Store the checksums ``new`` whose blobs still exist. Existing rows stay, since equal bytes have equal
    checksums.
    """
    there = present(w, namespace, {one.digest for one in new})
    rows = [
        {"namespace": namespace, "key": one.key, "digest": one.digest, "crc32": one.crc32}
        for one in new
        if one.digest in there
    ]
    w.insert_or_keep(checksums, rows)


def drop(w: WriteSession, namespace: str, digests: Iterable[Digest]) -> None:
    """Delete the checksums of the blobs ``digests``."""
    w.execute(
        delete(checksums).where(checksums.c.namespace == namespace, is_among(checksums.c.digest, each_text(digests)))
    )
