"""The counters of a model's runs, changed with its checkpoints, so that no page has to count those."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from sqlalchemy import ColumnElement, insert, literal, select, update

from .session import WriteSession
from .tables import runs

_r = runs.c


def add(w: WriteSession, model_id: int, run: str | None, version: int) -> None:
    """Count a new checkpoint of ``run``, right before the commit."""
    this = _is(model_id, run)
    first = select(literal(model_id), literal(version), literal(run), literal(version), literal(0), literal(0))
    columns = ["model_id", "first", "run", "latest", "checkpoints", "live"]
    w.postpone(insert(runs).from_select(columns, first.where(~select(_r.first).where(*this).exists())))
    more = update(runs).where(*this)
    w.postpone(more.values(latest=version, checkpoints=_r.checkpoints + 1, live=_r.live + 1))


def count_live(w: WriteSession, model_id: int, of: Iterable[str | None], change: Literal[-1, 1]) -> None:
    """Count checkpoints, given as their runs, that became visible or no longer are."""
    for run, number in Counter(of).items():
        w.execute(update(runs).where(*_is(model_id, run)).values(live=_r.live + change * number))


def _is(model_id: int, run: str | None) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _r.model_id == model_id, _r.run.is_(None) if run is None else _r.run == run
