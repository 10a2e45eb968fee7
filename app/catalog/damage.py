"""Marks on blobs whose bytes are not what their digests name.

A marked blob is one that an upload has to bring: ``blobs.stored`` does not know it, and ``blobs.insert_new`` heals it.
Readers still find it, and fail with what is wrong.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import func, select, update

from ..values.checkpoint import Blob
from ..values.digest import Digest
from .catalog import Catalog
from .commit import BATCH
from .dialect import each_integer, each_text
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import blobs, packs


def mark(w: WriteSession, namespace: str, blob: Blob) -> bool:
    """Note that ``blob`` is damaged where it lies. False where it lies elsewhere by now, or is marked already."""
    b = blobs.c
    pack = select(packs.c.id).where(packs.c.name == blob.pack).scalar_subquery()
    there = b.namespace == namespace, b.digest == blob.digest, b.pack_id == pack, b.offset == blob.offset
    marked = update(blobs).where(*there, b.damaged_at.is_(None)).values(damaged_at=_now(), healed_at=None)
    return w.execute(marked).rowcount == 1


def mark_pack(catalog: Catalog, pack: str) -> int:
    """Note that all blobs of a pack are lost, in short transactions; tells how many were not marked before."""
    b, count = blobs.c, 0
    lost = b.pack_id == select(packs.c.id).where(packs.c.name == pack).scalar_subquery(), b.damaged_at.is_(None)
    while True:
        with catalog.read() as s:
            ids = s.select(select(b.id).where(*lost).order_by(b.id).limit(BATCH)).scalars().all()
        if not ids:
            return count
        with catalog.turn() as w:
            marked = update(blobs).where(b.id.in_(each_integer(ids)), *lost)
            count += w.execute(marked.values(damaged_at=_now(), healed_at=None)).rowcount


def clear(w: WriteSession, namespace: str, blob: Blob) -> None:
    """Take the mark from a blob whose bytes are good where it lies: they were restored, say."""
    b = blobs.c
    pack = select(packs.c.id).where(packs.c.name == blob.pack).scalar_subquery()
    there = b.namespace == namespace, b.digest == blob.digest, b.pack_id == pack, b.offset == blob.offset
    w.execute(update(blobs).where(*there, b.damaged_at.is_not(None)).values(damaged_at=None))


def unmarked(s: ReadSession, namespace: str, digests: Iterable[Digest]) -> set[Digest]:
    """Those of ``digests`` that the namespace holds and that are not marked."""
    b = blobs.c
    wanted = b.namespace == namespace, b.digest.in_(each_text(digests)), b.damaged_at.is_(None)
    return set(s.select(select(b.digest).where(*wanted)).scalars())


def count(s: ReadSession) -> int:
    """How many blobs are marked."""
    return int(s.select(select(func.count()).select_from(blobs).where(blobs.c.damaged_at.is_not(None))).scalar_one())


def _now() -> int:
    return to_microseconds(datetime.now(UTC))
