"""CRC32s of derived spans: computed once, kept for every later download. The key is the caller's own."""

from collections.abc import Iterable, Mapping

from sqlalchemy import select

from .dialect import each_text
from .session import ReadSession, WriteSession
from .tables import checksums


def get(s: ReadSession, namespace: str, keys: Iterable[str]) -> dict[str, int]:
    """Those of ``keys`` that are kept, in one statement."""
    rows = s.select(
        select(checksums.c.key, checksums.c.crc32).where(
            checksums.c.namespace == namespace, checksums.c.key.in_(each_text(keys))
        )
    )
    return {row.key: row.crc32 for row in rows}


def put(w: WriteSession, namespace: str, crc32s: Mapping[str, int]) -> None:
    """Keep ``crc32s`` by key. What is kept already stays: the same bytes have the same checksum."""
    w.insert_or_keep(checksums, [{"namespace": namespace, "key": key, "crc32": crc32} for key, crc32 in crc32s.items()])
