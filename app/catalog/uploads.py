"""Uploads that arrive in parts: what was announced and where, which blocks have arrived, and until when they are
waited for.

Their bytes are in the data dir of one server, the upload's holder, and no other takes parts of it. The same bytes that
are announced to another server are another upload. The row comes before the file, so a file without one is left over.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, tuple_, update

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
    holder: str
    original: bool
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """Blocks from ``first`` on have arrived; ``checksums`` are their CRC32s, four bytes each, little-endian. ``stamp``
    tells who wrote them, and into which file.
    """

    first: int
    checksums: bytes
    stamp: str

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + len(self.checksums) // 4)


def begin(w: WriteSession, upload_id: str, holder: str, model: ModelName, split: bytes, original: bool) -> str:
    """Announce an upload to ``holder``, to be called ``upload_id``; its id, which is that of an earlier one where the
    very same has been announced to it before. Whoever comes back goes on with that.
    """
    digest = hashlib.sha256(split + (b"\1" if original else b"\0")).hexdigest()
    until = to_microseconds(datetime.now(UTC) + KEPT)
    row = {
        "id": upload_id,
        "namespace": model.namespace,
        "name": model.name,
        "digest": digest,
        "holder": holder,
        "split": split,
        "original": original,
        "kept_until": until,
    }
    w.insert_or_keep(uploads, [row])
    u = uploads.c
    same = update(uploads).where(
        u.namespace == model.namespace, u.name == model.name, u.digest == digest, u.holder == holder
    )
    return str(w.execute(same.values(kept_until=until).returning(u.id)).scalar_one())


def find(s: ReadSession, model: ModelName, upload_id: str) -> AnnouncedUpload | None:
    u = uploads.c
    row = s.select(
        select(u.holder, u.original, u.kept_until).where(
            u.id == upload_id, u.namespace == model.namespace, u.name == model.name
        )
    ).first()
    if row is None:
        return None
    return AnnouncedUpload(upload_id, model, row.holder, row.original, from_microseconds(row.kept_until))


def split_of(s: ReadSession, upload_id: str) -> bytes | None:
    """Its values.split.Split as bytes, which may be many; None if there is no such upload any more."""
    split: bytes | None = s.select(select(uploads.c.split).where(uploads.c.id == upload_id)).scalar()
    return split


def add_part(w: WriteSession, upload_id: str, part: Part) -> bool:
    """Note that blocks have arrived, which keeps the upload for a while; False if there is no such upload any more."""
    until = to_microseconds(datetime.now(UTC) + KEPT)
    if w.execute(update(uploads).where(uploads.c.id == upload_id).values(kept_until=until)).rowcount == 0:
        return False
    row = {
        "upload_id": upload_id,
        "first": part.first,
        "end": part.numbers.stop,
        "checksums": part.checksums,
        "stamp": part.stamp,
    }
    w.insert_or_keep(upload_parts, [row])
    return True


def forget_parts(w: WriteSession, upload_id: str) -> None:
    """What had arrived is not there any more."""
    w.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload_id))


def forget_lost(w: WriteSession, upload_id: str, lost: Iterable[Part]) -> None:
    """These parts have to be sent again."""
    p = upload_parts.c
    for part in lost:
        these = p.first == part.first, p.end == part.numbers.stop, p.stamp == part.stamp
        w.execute(delete(upload_parts).where(p.upload_id == upload_id, *these))


def parts(s: ReadSession, upload_id: str) -> Sequence[Part]:
    p = upload_parts.c
    rows = s.select(select(p.first, p.checksums, p.stamp).where(p.upload_id == upload_id).order_by(p.first))
    return [Part(row.first, row.checksums, row.stamp) for row in rows]


def expired(s: ReadSession, now: datetime) -> Sequence[str]:
    """The uploads that nobody waits for any more, whoever holds them."""
    return s.select(select(uploads.c.id).where(uploads.c.kept_until < to_microseconds(now))).scalars().all()


def held(s: ReadSession, holder: str | None, names: Iterable[str]) -> set[str]:
    """Those of ``names`` that are uploads of ``holder``."""
    wanted = uploads.c.holder == holder, uploads.c.id.in_(each_text(names))
    return set(s.select(select(uploads.c.id).where(*wanted)).scalars())


def forget(w: WriteSession, upload_id: str) -> bool:
    """No part of it is taken any more. False if there is no such upload."""
    forget_parts(w, upload_id)
    return w.execute(delete(uploads).where(uploads.c.id == upload_id)).rowcount == 1


def forget_expired(w: WriteSession, upload_id: str, now: datetime) -> None:
    """Forget it, unless somebody has gone on with it."""
    w.execute(delete(uploads).where(uploads.c.id == upload_id, uploads.c.kept_until < to_microseconds(now)))


def finish(w: WriteSession, upload_id: str) -> None:
    """It is a checkpoint now. Forget it, and what other servers have of the very same: whoever sends that will find
    that all of it is there.
    """
    u = uploads.c
    this = select(u.namespace, u.name, u.digest).where(u.id == upload_id)
    w.execute(delete(uploads).where(tuple_(u.namespace, u.name, u.digest).in_(this)))
