"""Curves: one metric of every checkpoint of a model there ever was, by run; and the names to choose curves by.

Unlike the history, which has whole checkpoints in pages, this reads one number of each, all at once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, literal, or_, select

from .models import Model
from .rows import metrics_from_json
from .session import ReadSession
from .tables import checkpoints, metrics, removed_checkpoints, runs

Axis = Literal["version", "epoch", "step", "time"]
State = Literal["live", "trashed", "purged"]

MOST_POINTS = 200_000
"""Most checkpoints that curves are drawn from, the newest ones."""

MOST_RUNS = 500
RECENT = 500
"""Newest versions among which the names of metrics are looked for."""

_X_AND_VERSION = itemgetter(1, 0)
_COLUMNS: Mapping[Axis, str] = {"version": "version", "epoch": "epoch", "step": "step", "time": "created_at"}


@dataclass(frozen=True, slots=True)
class Run:
    """A run, with the number of its checkpoints there ever were, and the newest one's version."""

    name: str | None
    checkpoints: int
    latest: int


class Point(NamedTuple):
    """A finite number of a checkpoint. ``x`` is its epoch, step, version, or time in microseconds.

    A tuple, and made of a row's values in their order, because curves have tens of thousands of points: a dataclass,
    and looking values up by their names, would take four times as long.
    """

    version: int
    x: int
    y: float
    state: State


Curves = dict[str | None, list[Point]]
"""The points of each run, in the order of x."""


def list_runs(s: ReadSession, model: Model) -> tuple[Run, ...]:
    """The runs, in the order in which they began; of very many, the MOST_RUNS with the newest checkpoints."""
    r = runs.c
    newest = select(r.run, r.checkpoints, r.latest, r.first).where(r.model_id == model.id)
    rows = s.select(newest.order_by(r.latest.desc()).limit(MOST_RUNS))
    return tuple(Run(row.run, row.checkpoints, row.latest) for row in sorted(rows, key=lambda row: row.first))


def metric_names(s: ReadSession, model: Model, latest: int) -> tuple[str, ...]:
    """The names of the metrics that recent checkpoints have, up to the version ``latest``."""
    names = (
        select(metrics.c.name)
        .distinct()
        .where(metrics.c.model_id == model.id, metrics.c.version > latest - RECENT, metrics.c.version <= latest)
    )
    return tuple(sorted(s.select(names).scalars()))


def curves(
    s: ReadSession,
    model: Model,
    metric: str,
    axis: Axis,
    runs: Collection[str | None] | None = None,
    between: tuple[int | None, int | None] = (None, None),
) -> Curves:
    """The curve of ``metric`` (or ``loss``) in each of ``runs``, ``between`` two values of x, in two statements."""
    found: Curves = {}
    for run, version, x, y in s.select(_live(model.id, metric, axis, runs, between)):
        found.setdefault(run, []).append(Point(version, x, y, "live"))
    for row in s.select(_removed(model.id, metric, axis, runs, between)):
        y = row.y if metric == "loss" else metrics_from_json(row.metrics).get(metric)
        if y is not None and abs(y) != float("inf") and y == y:  # noqa: PLR0124 - NaN
            found.setdefault(row.run, []).append(Point(row.version, row.x, y, row.state))
    for points in found.values():
        points.sort(key=_X_AND_VERSION)
    return found


def _scope(
    table: Any, model_id: int, axis: Axis, runs: Collection[str | None] | None, between: tuple[int | None, int | None]
) -> tuple[ColumnElement[int], list[ColumnElement[bool]]]:
    """The column of x, and the conditions that all rows fulfil."""
    x = table.c[_COLUMNS[axis]]
    scope = [table.c.model_id == model_id, table.c.version.is_not(None), x.is_not(None)]
    if runs is not None:
        named = table.c.run.in_([run for run in runs if run is not None])
        scope.append(or_(named, table.c.run.is_(None)) if None in runs else named)
    low, high = between
    if low is not None:
        scope.append(x >= low)
    if high is not None:
        scope.append(x <= high)
    return x, scope


def _live(model_id: int, metric: str, axis: Axis, runs: Any, between: Any) -> Select[*tuple[Any, ...]]:
    c, m = checkpoints.c, metrics.c
    x, scope = _scope(checkpoints, model_id, axis, runs, between)
    y = c.loss if metric == "loss" else m.value
    statement = select(c.run, c.version, x.label("x"), y.label("y")).where(*scope, y.is_not(None))
    if metric != "loss":
        same = and_(m.model_id == c.model_id, m.version == c.version, m.name == metric)
        statement = statement.join(metrics, same)
    return statement.order_by(c.version.desc()).limit(MOST_POINTS)


def _removed(model_id: int, metric: str, axis: Axis, runs: Any, between: Any) -> Select[*tuple[Any, ...]]:
    r = removed_checkpoints.c
    x, scope = _scope(removed_checkpoints, model_id, axis, runs, between)
    state = case((r.checkpoint_id.is_(None), "purged"), else_="trashed").label("state")
    if metric == "loss":
        scope.append(r.loss.is_not(None))
    value = literal(None) if metric == "loss" else r.metrics
    statement = select(r.run, r.version, x.label("x"), r.loss.label("y"), state, value.label("metrics"))
    return statement.where(*scope).order_by(r.version.desc()).limit(MOST_POINTS)
