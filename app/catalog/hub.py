"""Rows of the Hugging Face Hub's protocol: the texts of commits, tags like ``v1``, drafts, and files sent ahead."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update

from ..errors import Conflict, NotFound, PreconditionFailed
from ..values.checkpoint import ModelName, NewCheckpoint
from ..values.draft import Draft, DraftFile
from ..values.hub import HubCommit, StagedObject
from . import namespaces, packs, xorbs
from .lists import each_integer, each_text, is_among
from .models import get_model
from .rows import from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import checkpoints, hub_commits, hub_drafts, hub_objects, hub_tags
from .tables import packs as pack_rows

KEPT = timedelta(days=1)
"""Time for which a file that was sent ahead waits for its commit."""

MAX_TAGS = 1_000
"""Most tags of one model, beside its aliases."""

_o, _d, _t = hub_objects.c, hub_drafts.c, hub_tags.c


def stage(w: WriteSession, namespace: str, sha256: str, size: int, pack: str) -> bool:
    """Record that all of ``pack``, which was begun, is the object ``sha256``, and keep it for KEPT. False if the
    namespace has the object already: that one is kept for longer, and this pack is not needed.
    """
    this = _o.namespace == namespace, _o.sha256 == sha256
    pack_id = packs.hold(w, hub_objects, this, pack, KEPT.total_seconds())
    if pack_id is None:
        return False
    w.insert(hub_objects, [{"namespace": namespace, "sha256": sha256, "size": size, "pack_id": pack_id}])
    return True


def staged(s: ReadSession, namespace: str, sha256s: Iterable[str]) -> dict[str, StagedObject]:
    """Return the objects among ``sha256s`` that the namespace still keeps, by SHA-256."""
    now = to_microseconds(datetime.now(UTC))
    found = (
        select(_o.sha256, _o.size, pack_rows.c.name)
        .join(pack_rows, pack_rows.c.id == _o.pack_id)
        .where(_o.namespace == namespace, is_among(_o.sha256, each_text(sha256s)), pack_rows.c.lease_until > now)
    )
    return {row.sha256: StagedObject(row.size, row.name) for row in s.select(found)}


def staged_bytes(s: ReadSession, namespace: str) -> int:
    """The bytes of all objects that the namespace keeps for commits to come."""
    return int(s.select(select(func.coalesce(func.sum(_o.size), 0)).where(_o.namespace == namespace)).scalar_one())


def check_room(s: ReadSession, namespace: str, nbytes: int) -> None:
    """Raise QuotaExceeded unless the namespace may get ``nbytes`` more, beside all that was sent ahead of commits."""
    ahead = staged_bytes(s, namespace) + xorbs.unused_bytes(s, namespace)
    namespaces.check_room(s, namespace, nbytes + ahead)


def check_head(w: WriteSession, model_id: int, drawn: int, new: NewCheckpoint) -> None:
    """Raise PreconditionFailed unless the newest checkpoint before version ``drawn`` is the one that ``new``, a commit,
    was made on.
    """
    if new.hub is not None:
        c = checkpoints.c
        newest = select(func.coalesce(func.max(c.version), 0)).where(c.model_id == model_id, c.version < drawn)
        if w.select(newest).scalar_one() != new.hub.after:
            raise moved(new.model)


def moved(model: ModelName) -> PreconditionFailed:
    return PreconditionFailed(f"{model} has another newest commit by now: read it, and commit again", etag=None)


def remember(w: WriteSession, checkpoint_id: int, new: NewCheckpoint) -> None:
    """Store what belongs to a checkpoint that was made as a commit. Its model's draft has become part of it."""
    if new.hub is not None:
        commit, model = new.hub.commit, new.model
        row = {"title": commit.title, "message": commit.message, "sha256s": dict(commit.sha256s)}
        w.insert(hub_commits, [{"checkpoint_id": checkpoint_id, **row}])
        w.execute(delete(hub_drafts).where(_d.namespace == model.namespace, _d.name == model.name))


def commits(s: ReadSession, checkpoint_ids: Iterable[int]) -> dict[int, HubCommit]:
    """Return the commits among checkpoints, by the checkpoints' ids."""
    c = hub_commits.c
    rows = s.select(select(hub_commits).where(is_among(c.checkpoint_id, each_integer(list(checkpoint_ids)))))
    return {row.checkpoint_id: HubCommit(row.title, row.message, row.sha256s) for row in rows}


def tag(w: WriteSession, model: ModelName, name: str, version: int) -> None:
    """Give a checkpoint a tag. Raises NotFound, and Conflict (``tag-exists``, ``too-many-aliases``)."""
    model_id = get_model(w, model).id
    if name in tags(w, model):
        raise Conflict(f"{model} has a tag {name!r} already", code="tag-exists")
    if int(w.select(select(func.count()).where(_t.model_id == model_id)).scalar_one()) >= MAX_TAGS:
        raise Conflict(f"{model} has {MAX_TAGS:,} tags, the most that a model may have", code="too-many-aliases")
    c = checkpoints.c
    of_it = select(c.id).where(c.model_id == model_id, c.version == version)
    w.execute(delete(hub_tags).where(_t.model_id == model_id, _t.tag == name))  # of a checkpoint in the trash
    w.insert(hub_tags, [{"model_id": model_id, "tag": name, "checkpoint_id": w.select(of_it).scalar_one()}])


def untag(w: WriteSession, model: ModelName, name: str) -> None:
    """Take a tag away. Raises NotFound, code ``alias-not-found`` without such a tag."""
    if name not in tags(w, model):
        raise NotFound(f"{model} has no tag {name!r}", code="alias-not-found")
    w.execute(delete(hub_tags).where(_t.model_id == get_model(w, model).id, _t.tag == name))


def tags(s: ReadSession, model: ModelName) -> Mapping[str, int]:
    """Return the versions of the model's tags, by name. Raises NotFound."""
    c = checkpoints.c
    found = (
        select(_t.tag, c.version)
        .join(checkpoints, c.id == _t.checkpoint_id)
        .where(_t.model_id == get_model(s, model).id, c.version.is_not(None))
        .order_by(_t.tag)
    )
    return {row.tag: row.version for row in s.select(found)}


def begin_draft(w: WriteSession, model: ModelName) -> None:
    """Make an empty draft, unless there is one."""
    now = to_microseconds(datetime.now(UTC))
    row = {"namespace": model.namespace, "name": model.name, "files": {}, "created_at": now}
    w.insert_or_keep(hub_drafts, [row])


def find_draft(s: ReadSession, model: ModelName) -> Draft | None:
    """Return the draft of a model, None without one."""
    row = s.select(select(hub_drafts).where(_d.namespace == model.namespace, _d.name == model.name)).first()
    if row is None:
        return None
    return Draft(model, from_microseconds(row.created_at), {path: _file(each) for path, each in row.files.items()})


def change_draft(w: WriteSession, before: Draft, files: Mapping[str, DraftFile]) -> Draft:
    """Give a draft other files. Raises PreconditionFailed if it is not ``before`` any more."""
    if find_draft(w, before.model) != before:
        raise moved(before.model)
    rows = {path: _row(file) for path, file in files.items()}
    this = _d.namespace == before.model.namespace, _d.name == before.model.name
    w.execute(update(hub_drafts).where(*this).values(files=rows))
    return Draft(before.model, before.created_at, files)


def _file(row: Sequence[Any]) -> DraftFile:
    size, content, sha256 = row
    return DraftFile(size, None if content is None else base64.b64decode(content), sha256)


def _row(file: DraftFile) -> list[Any]:
    content = None if file.content is None else base64.b64encode(file.content).decode()
    return [file.size, content, file.sha256]
