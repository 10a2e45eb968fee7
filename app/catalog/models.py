"""Models: series of checkpoints. A model appears with its first checkpoint, and stays until it is deleted."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, and_, bindparam, delete, func, or_, select, update

from ..errors import Conflict, NotFound
from ..values.checkpoint import ModelName
from ..values.event import EventKind
from ..values.retention import Rules, rules_from_json
from .events import record
from .page import Page, check_limit, open_cursor, seal_cursor
from .refs import parse_best
from .rows import from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import NEVER_USED, checkpoints, models

DEFAULT_BEST = "min:loss"

_never_used = models.c.next_version == 1  # until its first commit ends, a model has a row but is invisible
exists = and_(~_never_used, models.c.deleted_at.is_(None))
"""The SQL condition that users see the model."""

_EXISTING = select(models.c.id).where(
    models.c.namespace == bindparam("namespace"), models.c.name == bindparam("name"), ~_never_used
)
_MODEL = select(models).where(models.c.namespace == bindparam("namespace"), models.c.name == bindparam("name"), exists)


@dataclass(frozen=True, slots=True)
class Model:
    """A model. ``checkpoints`` is the number of its checkpoints; ``best`` is the meaning of its ref ``best``,
    ``retention`` the rules by which its checkpoints are removed.
    """

    id: int
    name: ModelName
    best: str
    checkpoints: int
    created_at: datetime
    retention: Rules | None = None


def get_model(s: ReadSession, name: ModelName) -> Model:
    """Return the model. Raises NotFound, code ``model-not-found``."""
    row = s.select(_MODEL, namespace=name.namespace, name=name.name).first()
    if row is None:
        siblings = s.select(
            select(models.c.name).where(models.c.namespace == name.namespace, exists).order_by(models.c.name).limit(6)
        ).scalars()
        known = [f"{name.namespace}/{sibling}" for sibling in siblings]
        there = (
            f"its namespace has {', '.join(known[:5])}{', ...' if known[5:] else ''}"
            if known
            else "its namespace is empty"
        )
        raise NotFound(f"there is no model {name}; {there}", code="model-not-found")
    return _model(row)


def existing_model(s: ReadSession, name: ModelName) -> int:
    """Return the id of a model, which may be deleted. Raises NotFound, code ``model-not-found``."""
    model_id: int | None = s.select(_EXISTING, namespace=name.namespace, name=name.name).scalar()
    return get_model(s, name).id if model_id is None else model_id


def list_models(
    s: ReadSession, *, limit: int = 50, cursor: str | None = None, only: frozenset[str] | None = None, search: str = ""
) -> Page[Model]:
    """One page of models, ordered by name; only models in the namespaces ``only`` if they are given, and only those
    whose full name contains ``search``, in any case.

    Raises InvalidRequest, codes ``bad-limit`` and ``bad-cursor``.
    """
    statement = select(models).where(exists).order_by(models.c.namespace, models.c.name)
    listing = "models"
    if only is not None:
        listing = f"models of {', '.join(sorted(only))}"
        statement = statement.where(models.c.namespace.in_(sorted(only)))
    if search:
        listing = f"{listing} with {search}"
        full_name = func.lower(models.c.namespace + "/" + models.c.name)
        statement = statement.where(full_name.contains(search.lower(), autoescape=True))
    if cursor is not None:
        after, name = open_cursor(cursor, listing, (str,), (str,))
        statement = statement.where(
            models.c.namespace >= after,
            or_(models.c.namespace > after, and_(models.c.namespace == after, models.c.name > name)),
        )
    rows = s.select(statement.limit(check_limit(limit) + 1)).all()
    items = tuple(map(_model, rows[:limit]))
    if len(rows) <= limit:
        return Page(items, None)
    last = items[-1].name
    return Page(items, seal_cursor(listing, (last.namespace, last.name)))


def set_best(w: WriteSession, name: ModelName, best: str) -> Model:
    """Set ``best``. Raises NotFound, and InvalidRequest (``bad-best``) unless it is ``min:NAME`` or ``max:NAME``."""
    parse_best(best)
    model = get_model(w, name)
    w.execute(update(models).where(models.c.id == model.id).values(best=best))
    if best != model.best:
        record(w, EventKind.MODEL_CHANGED, name, detail={"best": best})
    return get_model(w, name)


def delete_empty(w: WriteSession, name: ModelName) -> None:
    """Delete a model without checkpoints. A later checkpoint restores the model, and version numbers continue.

    Raises NotFound, and Conflict, code ``model-not-empty``.
    """
    model = get_model(w, name)
    if model.checkpoints:
        held = "a checkpoint" if model.checkpoints == 1 else f"{model.checkpoints} checkpoints"
        raise Conflict(f"{name} has {held}; delete all its checkpoints first", code="model-not-empty")
    now = to_microseconds(datetime.now(UTC))
    w.execute(update(models).where(models.c.id == model.id).values(deleted_at=now, best=DEFAULT_BEST))
    record(w, EventKind.MODEL_DELETED, name)


def drop_never_used(w: WriteSession, namespace: str | None = None) -> None:
    """Remove the rows of models whose first commit did not end, in one namespace or in all."""
    in_use = select(checkpoints.c.id).where(checkpoints.c.model_id == models.c.id).exists()
    these = delete(models).where(NEVER_USED, ~in_use)
    w.execute(these if namespace is None else these.where(models.c.namespace == namespace))


def _model(row: Row[*tuple[Any, ...]]) -> Model:
    return Model(
        id=row.id,
        name=ModelName(row.namespace, row.name),
        best=row.best,
        checkpoints=row.checkpoints,
        created_at=from_microseconds(row.created_at),
        retention=None if row.retention is None else rules_from_json(row.retention),
    )
