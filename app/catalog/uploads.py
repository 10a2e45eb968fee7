"""Rows of uploads that arrive in parts: the announcement, the server that holds it, the arrived blocks, the expiry.

The bytes are in the data dir of one server, the upload's holder; no other server takes its parts. The same bytes
announced to another server are a separate upload. The row is written before the file, so a file without a row is a
leftover.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, tuple_, update

from ..values.checkpoint import CheckpointName, ModelName
from .dialect import each_text
from .rows import from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import upload_parts, uploads

KEPT = timedelta(hours=24)
"""Longest wait of an upload for its next part."""


@dataclass(frozen=True, slots=True)
class AnnouncedUpload:
    """An announced upload. ``original`` tells whether clients may request the file itself later."""

    id: str
    model: ModelName
    holder: str
    original: bool
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive arrived blocks from ``first`` on. ``checksums`` are their CRC32s, four bytes each, little-endian.
    ``stamp`` identifies their writer and its file.
    """

    first: int
    checksums: bytes
    stamp: str

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + len(self.checksums) // 4)


def begin(
    w: WriteSession,
    upload_id: str,
    holder: str,
    model: ModelName,
    split: bytes,
    original: bool,
    parent: CheckpointName | None = None,
) -> str:
    """Announce an upload to ``holder`` with the id ``upload_id``, and return its id. If the same upload was announced
    to that holder before, return the earlier id, so that a returning client continues that upload. Retention keeps
    ``parent`` as long as the upload is kept.
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
        "parent": None if parent is None else str(parent),
    }
    w.insert_or_keep(uploads, [row])
    u = uploads.c
    same = update(uploads).where(
        u.namespace == model.namespace, u.name == model.name, u.digest == digest, u.holder == holder
    )
    return str(w.execute(same.values(kept_until=until, parent=row["parent"]).returning(u.id)).scalar_one())


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
    """The upload's values.split.Split as bytes, which may be large; None if the upload no longer exists."""
    split: bytes | None = s.select(select(uploads.c.split).where(uploads.c.id == upload_id)).scalar()
    return split


def add_part(w: WriteSession, upload_id: str, part: Part) -> bool:
    """Record arrived blocks and extend the upload's lifetime; False if the upload no longer exists."""
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
    """Delete all parts of an upload, because its arrived bytes are gone."""
    w.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload_id))


def forget_lost(w: WriteSession, upload_id: str, lost: Iterable[Part]) -> None:
    """Delete the parts ``lost``, which have to be sent again."""
    p = upload_parts.c
    for part in lost:
        these = p.first == part.first, p.end == part.numbers.stop, p.stamp == part.stamp
        w.execute(delete(upload_parts).where(p.upload_id == upload_id, *these))


def parts(s: ReadSession, upload_id: str) -> Sequence[Part]:
    p = upload_parts.c
    rows = s.select(select(p.first, p.checksums, p.stamp).where(p.upload_id == upload_id).order_by(p.first))
    return [Part(row.first, row.checksums, row.stamp) for row in rows]


def expired(s: ReadSession, now: datetime) -> Sequence[str]:
    """The ids of expired uploads of all holders."""
    return s.select(select(uploads.c.id).where(uploads.c.kept_until < to_microseconds(now))).scalars().all()


def held(s: ReadSession, holder: str | None, names: Iterable[str]) -> set[str]:
    """The ``names`` that are uploads of ``holder``."""
    wanted = uploads.c.holder == holder, uploads.c.id.in_(each_text(names))
    return set(s.select(select(uploads.c.id).where(*wanted)).scalars())


def forget(w: WriteSession, upload_id: str) -> bool:
    """Delete an upload: the server accepts no more parts of it. False if there is no such upload."""
    forget_parts(w, upload_id)
    return w.execute(delete(uploads).where(uploads.c.id == upload_id)).rowcount == 1


def forget_expired(w: WriteSession, upload_id: str, now: datetime) -> None:
    """Delete an upload if it is still expired, so not if a client has continued it."""
    w.execute(delete(uploads).where(uploads.c.id == upload_id, uploads.c.kept_until < to_microseconds(now)))


def finish(w: WriteSession, upload_id: str) -> None:
    """Delete an upload that became a checkpoint, and the same upload at other servers: their clients will find all
    bytes stored.
    """
    u = uploads.c
    this = select(u.namespace, u.name, u.digest).where(u.id == upload_id)
    w.execute(delete(uploads).where(tuple_(u.namespace, u.name, u.digest).in_(this)))
