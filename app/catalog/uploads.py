"""Uploads that arrive in parts: what was announced, which blocks have arrived, and until when they are waited for.

The row comes before the file and goes after it, so every file is somebody's.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, update

from ..values.checkpoint import ModelName
from .dialect import each_text
from .rows import from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import upload_parts, uploads

KEPT = timedelta(hours=24)
"""How long an upload waits for its next part."""


@dataclass(frozen=True, slots=True)
class AnnouncedUpload:
    """``original`` says that the file itself may be asked for later."""

    id: str
    model: ModelName
    original: bool
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """Blocks from ``first`` on have arrived; ``checksums`` are their CRC32s, four bytes each, little-endian."""

    first: int
    checksums: bytes

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + len(self.checksums) // 4)


def begin(w: WriteSession, upload_id: str, model: ModelName, split: bytes, original: bool) -> str:
    """Announce an upload, to be called ``upload_id``; its id, which is that of an earlier one where the very same has
    been announced before. Whoever comes back goes on with that.
    """
    digest = hashlib.sha256(split + (b"\1" if original else b"\0")).hexdigest()
    until = to_microseconds(datetime.now(UTC) + KEPT)
    row = {
        "id": upload_id,
        "namespace": model.namespace,
        "name": model.name,
        "digest": digest,
        "split": split,
        "original": original,
        "kept_until": until,
    }
    w.insert_or_keep(uploads, [row])
    u = uploads.c
    same = update(uploads).where(u.namespace == model.namespace, u.name == model.name, u.digest == digest)
    return str(w.execute(same.values(kept_until=until).returning(u.id)).scalar_one())


def find(s: ReadSession, model: ModelName, upload_id: str) -> AnnouncedUpload | None:
    u = uploads.c
    row = s.select(
        select(u.original, u.kept_until).where(u.id == upload_id, u.namespace == model.namespace, u.name == model.name)
    ).first()
    if row is None:
        return None
    return AnnouncedUpload(upload_id, model, row.original, from_microseconds(row.kept_until))


def split_of(s: ReadSession, upload_id: str) -> bytes | None:
    """Its values.split.Split as bytes, which may be many; None if there is no such upload any more."""
    split: bytes | None = s.select(select(uploads.c.split).where(uploads.c.id == upload_id)).scalar()
    return split


def add_part(w: WriteSession, upload_id: str, part: Part) -> bool:
    """Note that blocks have arrived, which keeps the upload for a while; False if there is no such upload any more."""
    until = to_microseconds(datetime.now(UTC) + KEPT)
    if w.execute(update(uploads).where(uploads.c.id == upload_id).values(kept_until=until)).rowcount == 0:
        return False
    row = {"upload_id": upload_id, "first": part.first, "end": part.numbers.stop, "checksums": part.checksums}
    w.insert_or_keep(upload_parts, [row])
    return True


def forget_parts(w: WriteSession, upload_id: str) -> None:
    """What had arrived is not there any more."""
    w.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload_id))


def parts(s: ReadSession, upload_id: str) -> Sequence[Part]:
    p = upload_parts.c
    rows = s.select(select(p.first, p.checksums).where(p.upload_id == upload_id).order_by(p.first))
    return [Part(row.first, row.checksums) for row in rows]


def expired(s: ReadSession, now: datetime) -> Sequence[str]:
    """The uploads that nobody waits for any more."""
    return s.select(select(uploads.c.id).where(uploads.c.kept_until < to_microseconds(now))).scalars().all()


def among(s: ReadSession, names: Iterable[str]) -> set[str]:
    """Those of ``names`` that are uploads."""
    return set(s.select(select(uploads.c.id).where(uploads.c.id.in_(each_text(names)))).scalars())


def forget(w: WriteSession, upload_id: str) -> None:
    """Its file is gone."""
    forget_parts(w, upload_id)
    w.execute(delete(uploads).where(uploads.c.id == upload_id))
