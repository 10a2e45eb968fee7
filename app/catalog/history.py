"""The history of a model: the numbers of every checkpoint there ever was, removed ones too."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import JSON, Row, Select, case, cast, literal, null, select, union_all

from ..values.checkpoint import ModelName
from .models import existing_model
from .page import Page, check_limit, open_cursor, seal_cursor
from .rows import check_text, from_microseconds, join_number, load_metrics, metrics_from_json
from .session import ReadSession
from .shown import PAGE_BYTES
from .tables import checkpoints, removed_checkpoints

State = Literal["live", "trashed", "purged"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A checkpoint's numbers. ``loss`` and metrics may be non-finite."""

    version: int
    run: str | None
    epoch: int | None
    step: int | None
    loss: float | None
    metrics: dict[str, float]
    created_at: datetime
    state: State

    @property
    def weight(self) -> int:
        """Its approximate size, in bytes of JSON."""
        return 200 + sum(len(name) + 30 for name in self.metrics)


def history(
    s: ReadSession, name: ModelName, *, run: str | None = None, limit: int = 50, cursor: str | None = None
) -> Page[Entry]:
    """One page of the history, oldest version first, in two statements.

    Raises NotFound (``model-not-found``) and InvalidRequest (``bad-limit``, ``bad-cursor``, ``bad-text``).
    """
    model_id = existing_model(s, name)
    listing = repr(("history", model_id, run))
    after = 0 if cursor is None else open_cursor(cursor, listing, (int,))[0]
    wanted = None if run is None else check_text(run, "run")
    rows = s.select(_entries(model_id, wanted, after, check_limit(limit) + 1)).all()
    live = load_metrics(s, model_id, [row.version for row in rows if row.state == "live"])
    items: list[Entry] = []
    nbytes = 0
    for row in rows[:limit]:
        items.append(_entry(row, live.get(row.version, {})))
        nbytes += items[-1].weight
        if nbytes >= PAGE_BYTES:
            break
    more = len(items) < len(rows)
    return Page(tuple(items), seal_cursor(listing, [items[-1].version]) if more else None)


def _entries(model_id: int, run: str | None, after: int, count: int) -> Select[*tuple[Any, ...]]:
    """The first ``count`` entries after a version; each half is a scan of an index, which ends there too."""
    c, r = checkpoints.c, removed_checkpoints.c
    names = ("version", "run", "epoch", "step", "loss", "loss_nonfinite", "created_at")
    live = select(*(c[name] for name in names), literal("live").label("state"), cast(null(), JSON).label("metrics"))
    state = case((r.checkpoint_id.is_(None), "purged"), else_="trashed").label("state")
    removed = select(*(r[name] for name in names), state, r.metrics)
    halves = []
    for half, columns in ((live, c), (removed, r)):
        scope = half.where(columns.model_id == model_id, columns.version > after)
        scope = scope if run is None else scope.where(columns.run == run)
        halves.append(select(scope.order_by(columns.version).limit(count).subquery()))
    both = union_all(*halves).subquery()
    return select(both).order_by(both.c.version).limit(count)


def _entry(row: Row[*tuple[Any, ...]], live: dict[str, float]) -> Entry:
    return Entry(
        version=row.version,
        run=row.run,
        epoch=row.epoch,
        step=row.step,
        loss=join_number(row.loss, row.loss_nonfinite),
        metrics=live if row.state == "live" else metrics_from_json(row.metrics),
        created_at=from_microseconds(row.created_at),
        state=row.state,
    )
