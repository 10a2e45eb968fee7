"""The overview of models: what a person wants to see of each in a list, in statements whose number never grows.

Each number is a counter, or a scalar subquery that one index answers, so a model with many checkpoints costs little
more than one with few.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, select

from ..values.checkpoint import ModelName
from .models import Model, list_models
from .page import Page
from .rows import from_microseconds
from .session import ReadSession
from .tables import checkpoints, metrics, models, runs

RECENT = 100
"""Newest versions whose losses the overview shows as a line."""


@dataclass(frozen=True, slots=True)
class Best:
    """The checkpoint that the ref ``best`` means, and its number by that rule."""

    version: int
    value: float


@dataclass(frozen=True, slots=True)
class Overview:
    """A model in a list. ``nbytes`` is the size of all its checkpoints together; ``losses`` are the newest finite ones
    of the newest checkpoint's run, oldest first.
    """

    model: Model
    latest: int | None
    updated_at: datetime | None
    best: Best | None
    runs: int
    nbytes: int
    losses: tuple[float, ...]

    @property
    def name(self) -> ModelName:
        return self.model.name


def list_overviews(
    s: ReadSession, *, limit: int = 50, cursor: str | None = None, only: frozenset[str] | None = None, search: str = ""
) -> Page[Overview]:
    """One page of models as ``list_models`` has it, in three statements. Raises as ``list_models``."""
    page = list_models(s, limit=limit, cursor=cursor, only=only, search=search)
    return Page(_overviews(s, page.items), page.next)


def overview_of(s: ReadSession, model: Model) -> Overview:
    """The overview of one model, in two statements."""
    (found,) = _overviews(s, [model])
    return found


def _overviews(s: ReadSession, found: Sequence[Model]) -> tuple[Overview, ...]:
    if not found:
        return ()
    ids = [model.id for model in found]
    numbers = {row.id: row for row in s.select(_NUMBERS.where(models.c.id.in_(ids)))}
    losses: dict[int, list[float]] = {id_: [] for id_ in ids}
    for row in s.select(_LOSSES.where(models.c.id.in_(ids))):
        if row.run == numbers[row.id].run:
            losses[row.id].append(row.loss)
    return tuple(_overview(model, numbers[model.id], losses[model.id]) for model in found)


def _overview(model: Model, row: Row[*tuple[Any, ...]], losses: list[float]) -> Overview:
    return Overview(
        model=model,
        latest=row.latest,
        updated_at=None if row.updated_at is None else from_microseconds(row.updated_at),
        best=None if row.best_version is None else Best(row.best_version, row.best_value),
        runs=row.runs,
        nbytes=int(row.nbytes),
        losses=tuple(losses),
    )


_ITS = (checkpoints.c.model_id == models.c.id, checkpoints.c.version.is_not(None))


def _newest(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return select(column).where(*_ITS).order_by(checkpoints.c.version.desc()).limit(1).scalar_subquery()


def _best(wanted: str) -> ColumnElement[Any]:
    """The version, or the value, of the best checkpoint, by the rule that the model's row holds."""
    c, m = checkpoints.c, metrics.c
    rule, name = func.substr(models.c.best, 1, 4), func.substr(models.c.best, 5)
    its_metric = (m.model_id == models.c.id, m.name == name)
    ways = []
    for kind, extreme in (("min:", func.min), ("max:", func.max)):
        least_loss = select(extreme(c.loss)).where(*_ITS).correlate(models).scalar_subquery()
        by_loss = select(c.version if wanted == "version" else c.loss).where(*_ITS, c.loss == least_loss)
        by_loss = by_loss.order_by(c.version.desc()).limit(1)
        least = select(extreme(m.value)).where(*its_metric).correlate(models).scalar_subquery()
        by_metric = select(m.version if wanted == "version" else m.value).where(*its_metric, m.value == least)
        by_metric = by_metric.order_by(m.version.desc()).limit(1)
        ways.append((and_(rule == kind, name == "loss"), by_loss.scalar_subquery()))
        ways.append((rule == kind, by_metric.scalar_subquery()))
    return case(*ways)


_NUMBERS: Select[*tuple[Any, ...]] = select(
    models.c.id,
    _newest(checkpoints.c.version).label("latest"),
    _newest(checkpoints.c.created_at).label("updated_at"),
    _newest(checkpoints.c.run).label("run"),
    _best("version").label("best_version"),
    _best("value").label("best_value"),
    select(func.count())
    .where(runs.c.model_id == models.c.id, runs.c.run.is_not(None), runs.c.live > 0)
    .scalar_subquery()
    .label("runs"),
    models.c.nbytes,
)
_LOSSES: Select[*tuple[Any, ...]] = (
    select(models.c.id, checkpoints.c.run, checkpoints.c.loss)
    .join(checkpoints, and_(*_ITS))
    .where(checkpoints.c.version >= models.c.next_version - RECENT, checkpoints.c.loss.is_not(None))
    .order_by(models.c.id, checkpoints.c.version)
)


def written_bytes(s: ReadSession, model: Model) -> int:
    """The bytes that the uploads of a model's checkpoints added to the store; the others were there already."""
    return int(s.select(select(models.c.new_bytes).where(models.c.id == model.id)).scalar_one())
