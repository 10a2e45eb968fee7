"""The counters of a model's runs, changed with its checkpoints, so that no page has to count those."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from sqlalchemy import BigInteger, ColumnElement, Text, bindparam, insert, literal, select, update

from .session import WriteSession
from .tables import runs

_r = runs.c

_MODEL, _VERSION, _RUN = (
    bindparam("the_model", type_=BigInteger),
    bindparam("the_version", type_=BigInteger),
    bindparam("the_run", type_=Text),
)
_THIS = {True: (_r.model_id == _MODEL, _r.run.is_(None)), False: (_r.model_id == _MODEL, _r.run == _RUN)}
"""The condition for a run's row, by whether it is that of the checkpoints without a run."""
_BEGIN = {
    no_run: insert(runs).from_select(
        ["model_id", "first", "run", "latest", "checkpoints", "live"],
        select(_MODEL, _VERSION, _RUN, _VERSION, literal(0), literal(0)).where(~select(_r.first).where(*this).exists()),
    )
    for no_run, this in _THIS.items()
}
_COUNT = {
    no_run: update(runs).where(*this).values(latest=_VERSION, checkpoints=_r.checkpoints + 1, live=_r.live + 1)
    for no_run, this in _THIS.items()
}


def add(w: WriteSession, model_id: int, run: str | None, version: int) -> None:
    """Count a new checkpoint of ``run``, right before the commit."""
    row = {"the_model": model_id, "the_version": version, "the_run": run}
    w.postpone(_BEGIN[run is None], [row])
    w.postpone(_COUNT[run is None], [row])


def count_live(w: WriteSession, model_id: int, of: Iterable[str | None], change: Literal[-1, 1]) -> None:
    """Count checkpoints, given as their runs, that became visible or no longer are."""
    for run, number in Counter(of).items():
        w.execute(update(runs).where(*_is(model_id, run)).values(live=_r.live + change * number))


def _is(model_id: int, run: str | None) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _r.model_id == model_id, _r.run.is_(None) if run is None else _r.run == run
