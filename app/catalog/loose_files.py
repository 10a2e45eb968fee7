"""Rows of loose files: files that clients write by name, before a checkpoint is made of them.

A row under each path is the newest file. A removed file leaves a row without a recipe, so that a client that makes a
checkpoint of several files sees whether another one changed any of them meanwhile. All rows go after a day.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, not_, or_, select, true

from ..errors import Conflict
from ..values.checkpoint import ModelName
from ..values.loose_file import LooseFile, NewLooseFile
from . import namespaces
from .rows import check_text, from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import loose_files

KEPT = timedelta(days=1)
"""Time for which a loose file waits for its checkpoint. Blobs that were sent for it wait as long."""

MAX_FILES = 10_000
"""Most loose files of a model."""

_f = loose_files.c
_kept = _f.recipe.is_not(None)


def write(w: WriteSession, model: ModelName, file: NewLooseFile) -> LooseFile:
    """Write a file, in place of the one under its path.

    Raises InvalidRequest ``bad-text`` for a ``writer`` that cannot be stored, QuotaExceeded, and Conflict
    ``too-many-files``.
    """
    check_text(file.writer, "writer")
    this = and_(*_of(model), _f.path == file.path)
    namespaces.check_room(w, model.namespace, len(file.recipe or b"") + _stored(w, model.namespace, but=this))
    before = w.select(
        select(_f.id, _f.writer, _f.replaced, _f.recipe.is_(None).label("is_removed")).where(this)
    ).first()
    if before is None or before.is_removed:
        _check_count(w, model)
    replaced = None
    if before is not None:
        replaced = before.replaced if before.writer == file.writer else before.id
    now = datetime.now(UTC)
    number = _put(w, model, file, now, replaced)
    return LooseFile(number, file.path, file.size, now, replaced)


def remove(w: WriteSession, model: ModelName, under: str, upto: int | None = None) -> int:
    """Remove the file ``under``, and the files in the folder of this name, as far as their numbers are at most
    ``upto``. Return how many they were.
    """
    meant = and_(*_of(model), _below(under), _kept, true() if upto is None else _f.id <= upto)
    rows = w.select(select(_f.id, _f.path, _f.size).where(meant).order_by(_f.id)).all()
    now = datetime.now(UTC)
    w.execute(delete(loose_files).where(meant))
    w.insert(loose_files, [_row(model, NewLooseFile(row.path, row.size, None, 0, ""), now, row.id) for row in rows])
    return len(rows)


def listed(s: ReadSession, model: ModelName, under: str, after: str, limit: int) -> Sequence[LooseFile]:
    """Return the file ``under``, and the files in the folder of this name, sorted by path, those behind ``after``."""
    found = select(_f.id, _f.path, _f.size, _f.written_at, _f.replaced).where(*_of(model), _below(under))
    found = found.where(_kept, _f.path > after).order_by(_f.path).limit(limit)
    return [
        LooseFile(row.id, row.path, row.size, from_microseconds(row.written_at), row.replaced)
        for row in s.select(found)
    ]


def newest(s: ReadSession, model: ModelName, under: str) -> int:
    """Return the number of the newest change of a file ``under``, or in the folder of this name; 0 without any."""
    found = select(func.coalesce(func.max(_f.id), 0)).where(*_of(model), _below(under))
    return int(s.select(found).scalar_one())


def recipe_bytes(s: ReadSession, model: ModelName, number: int) -> int | None:
    """Return the size of a file's recipe, decompressed; None if the file was replaced or removed."""
    found: int | None = s.select(select(_f.recipe_bytes).where(*_of(model), _f.id == number, _kept)).scalar()
    return found


def recipe(s: ReadSession, model: ModelName, number: int) -> bytes | None:
    """Return the recipe of a file, None if the file was replaced or removed."""
    found: bytes | None = s.select(select(_f.recipe).where(*_of(model), _f.id == number)).scalar()
    return found


def _put(w: WriteSession, model: ModelName, file: NewLooseFile, now: datetime, replaced: int | None) -> int:
    w.execute(delete(loose_files).where(*_of(model), _f.path == file.path))
    row = _row(model, file, now, replaced)
    return int(w.execute(insert(loose_files).values(row).returning(_f.id)).scalar_one())


def _row(model: ModelName, file: NewLooseFile, now: datetime, replaced: int | None) -> dict[str, Any]:
    return {
        "namespace": model.namespace,
        "name": model.name,
        "path": file.path,
        "size": file.size,
        "recipe": file.recipe,
        "recipe_bytes": file.recipe_bytes,
        "writer": file.writer,
        "replaced": replaced,
        "written_at": to_microseconds(now),
        "kept_until": to_microseconds(now + KEPT),
    }


def _check_count(w: WriteSession, model: ModelName) -> None:
    count = select(func.count()).where(*_of(model), _kept)
    if int(w.select(count).scalar_one()) >= MAX_FILES:
        detail = f"{model} has {MAX_FILES:,} loose files, the most that a model may have: remove some, or wait a day"
        raise Conflict(detail, code="too-many-files")


def _stored(s: ReadSession, namespace: str, but: ColumnElement[bool]) -> int:
    """The bytes of all recipes of a namespace ``but`` that of the file which is replaced."""
    total = select(func.coalesce(func.sum(func.length(_f.recipe)), 0)).where(_f.namespace == namespace, not_(but))
    return int(s.select(total).scalar_one())


def _of(model: ModelName) -> tuple[ColumnElement[bool], ...]:
    return _f.namespace == model.namespace, _f.name == model.name


def _below(path: str) -> ColumnElement[bool]:
    """The condition of a path, and of those in its folder; ``/`` comes right before ``0``."""
    return or_(_f.path == path, and_(_f.path > f"{path}/", _f.path < f"{path}0")) if path else _f.path > ""
