"""Marks on damaged blobs, whose bytes do not match their digests.

An upload has to send a marked blob again: ``blobs.stored`` leaves it out, and ``blobs.insert_new`` heals it. Readers
still find the blob, and fail with an error that names the damage.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import func, select, update

from ..values.checkpoint import Blob
from ..values.digest import Digest
from .catalog import Catalog
from .commit import BATCH
from .lists import each_integer, each_text, is_among
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import blobs, packs


def mark(w: WriteSession, namespace: str, blob: Blob) -> bool:
    """Mark ``blob`` as damaged at its place. False if the blob has moved or is marked already."""
    b = blobs.c
    pack = select(packs.c.id).where(packs.c.name == blob.pack).scalar_subquery()
    there = b.namespace == namespace, b.digest == blob.digest, b.pack_id == pack, b.offset == blob.offset
    marked = update(blobs).where(*there, b.damaged_at.is_(None)).values(damaged_at=_now(), healed_at=None)
    return w.execute(marked).rowcount == 1


def mark_pack(catalog: Catalog, pack: str) -> int:
    """Mark all blobs of a pack as damaged, in short transactions, and return the number of new marks."""
    b, count = blobs.c, 0
    lost = b.pack_id == select(packs.c.id).where(packs.c.name == pack).scalar_subquery(), b.damaged_at.is_(None)
    while True:
        with catalog.read() as s:
            ids = s.select(select(b.id).where(*lost).order_by(b.id).limit(BATCH)).scalars().all()
        if not ids:
            return count
        with catalog.turn() as w:
            marked = update(blobs).where(is_among(b.id, each_integer(ids)), *lost)
            count += w.execute(marked.values(damaged_at=_now(), healed_at=None)).rowcount


def clear(w: WriteSession, namespace: str, blob: Blob) -> None:
    """Remove the mark of a blob whose bytes are good at its place, for example after a restore."""
    b = blobs.c
    pack = select(packs.c.id).where(packs.c.name == blob.pack).scalar_subquery()
    there = b.namespace == namespace, b.digest == blob.digest, b.pack_id == pack, b.offset == blob.offset
    w.execute(update(blobs).where(*there, b.damaged_at.is_not(None)).values(damaged_at=None))


def unmarked(s: ReadSession, namespace: str, digests: Iterable[Digest]) -> set[Digest]:
    """The ``digests`` of unmarked blobs that the namespace holds."""
    b = blobs.c
    wanted = b.namespace == namespace, is_among(b.digest, each_text(digests)), b.damaged_at.is_(None)
    return set(s.select(select(b.digest).where(*wanted)).scalars())


def count(s: ReadSession) -> int:
    """The number of marked blobs."""
    return int(s.select(select(func.count()).select_from(blobs).where(blobs.c.damaged_at.is_not(None))).scalar_one())


def _now() -> int:
    return to_microseconds(datetime.now(UTC))
