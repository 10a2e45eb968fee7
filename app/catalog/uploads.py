"""Rows of uploads that arrive in parts: the announcement, the arrived blocks, the expiry.

The parts are objects in the store, in the area of a pack that is begun with the upload and has its name and its
lifetime. So any server that shares the catalog and the store may receive them. The transaction that seals the pack
forgets the upload: of several commits one succeeds.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, delete, select, update

from ..errors import Gone
from ..values.checkpoint import CheckpointName, ModelName
from . import packs
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
    original: bool
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive arrived blocks from ``first`` on. ``checksums`` are their CRC32s, four bytes each, little-endian.
    They are one object in the store.
    """

    first: int
    checksums: bytes

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + len(self.checksums) // 4)


def gone() -> Gone:
    return Gone(
        "this upload does not exist: it was committed, abandoned, or has expired; announce a new one",
        code="upload-gone",
    )


def begin(
    w: WriteSession,
    upload_id: str,
    model: ModelName,
    split: bytes,
    original: bool,
    parent: CheckpointName | None = None,
) -> str:
    """Announce an upload with the id ``upload_id``, begin its pack, and return its id. If the same upload was announced
    before, return the earlier id, so that a returning client continues that upload. Retention keeps ``parent`` as long
    as the upload is kept.
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
        "parent": None if parent is None else str(parent),
    }
    w.insert_or_keep(uploads, [row])
    u = uploads.c
    same = update(uploads).where(u.namespace == model.namespace, u.name == model.name, u.digest == digest)
    found = str(w.execute(same.values(kept_until=until, parent=row["parent"]).returning(u.id)).scalar_one())
    if found != upload_id:
        if packs.renew(w, found, KEPT.total_seconds()):
            return found
        finish(w, found)  # its pack was given up after it had expired, and its parts may be gone
        w.insert(uploads, [row])
    packs.begin(w, upload_id, KEPT.total_seconds())
    return upload_id


def find(s: ReadSession, model: ModelName, upload_id: str) -> AnnouncedUpload | None:
    u = uploads.c
    row = s.select(
        select(u.original, u.kept_until).where(u.id == upload_id, u.namespace == model.namespace, u.name == model.name)
    ).first()
    if row is None:
        return None
    return AnnouncedUpload(upload_id, model, row.original, from_microseconds(row.kept_until))


def split_of(s: ReadSession, upload_id: str) -> bytes | None:
    """The upload's values.split.Split as bytes, which may be large; None if the upload no longer exists."""
    split: bytes | None = s.select(select(uploads.c.split).where(uploads.c.id == upload_id)).scalar()
    return split


def add_parts(w: WriteSession, upload_id: str, arrived: Iterable[Part]) -> bool:
    """Record arrived blocks and extend the upload's lifetime; False if the upload no longer exists, or its pack was
    given up.
    """
    until = to_microseconds(datetime.now(UTC) + KEPT)
    if w.execute(update(uploads).where(uploads.c.id == upload_id).values(kept_until=until)).rowcount == 0:
        return False
    if not packs.renew(w, upload_id, KEPT.total_seconds()):
        return False
    rows = [
        {"upload_id": upload_id, "first": part.first, "end": part.numbers.stop, "checksums": part.checksums}
        for part in arrived
    ]
    w.insert_or_keep(upload_parts, rows)
    return True


def forget_lost(w: WriteSession, upload_id: str, lost: Iterable[Part]) -> None:
    """Delete the parts ``lost``, which have to be sent again."""
    p = upload_parts.c
    this = p.upload_id == bindparam("upload"), p.first == bindparam("begin"), p.end == bindparam("stop")
    rows = [{"upload": upload_id, "begin": part.first, "stop": part.numbers.stop} for part in lost]
    w.execute_many(delete(upload_parts).where(*this), rows)


def parts(s: ReadSession, upload_id: str) -> Sequence[Part]:
    p = upload_parts.c
    rows = s.select(select(p.first, p.checksums).where(p.upload_id == upload_id).order_by(p.first))
    return [Part(row.first, row.checksums) for row in rows]


def expired(s: ReadSession, now: datetime) -> Sequence[str]:
    """The ids of expired uploads."""
    return s.select(select(uploads.c.id).where(uploads.c.kept_until < to_microseconds(now))).scalars().all()


def forget(w: WriteSession, upload_id: str) -> bool:
    """Delete an upload: it takes no more parts, and its pack can no longer be sealed. False if there is no such upload.

    The sweep deletes what is left of the pack, also a part that arrives this late.
    """
    if not finish(w, upload_id):
        return False
    packs.end(w, upload_id)
    return True


def forget_expired(w: WriteSession, upload_id: str, now: datetime) -> bool:
    """Delete an upload if it is still expired, so not if a client has continued it. Its pack is abandoned by now."""
    still = select(uploads.c.id).where(uploads.c.id == upload_id, uploads.c.kept_until < to_microseconds(now))
    return w.select(still).first() is not None and finish(w, upload_id)


def finish(w: WriteSession, upload_id: str) -> bool:
    """Delete an upload that becomes a checkpoint. False if there is no such upload."""
    w.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload_id))
    return w.execute(delete(uploads).where(uploads.c.id == upload_id)).rowcount == 1
