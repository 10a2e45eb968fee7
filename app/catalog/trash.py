"""The trash: removed checkpoints, out of every reader's sight until they are restored or purged.

A removed checkpoint loses its version, its metrics and its tags, which a row of ``removed_checkpoints`` keeps. Its
references to blobs stay until it is purged, so that it comes back whole.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, bindparam, delete, func, null, select, update

from ..errors import Conflict, Gone, NotFound
from ..values.actor import actor
from ..values.checkpoint import Checkpoint, ModelName, Removal
from ..values.event import EventKind
from . import namespaces, runs, unfinished
from .by_page import by_page
from .catalog import Catalog
from .checkpoints import resolve
from .events import record
from .lists import each_integer, is_among
from .models import existing_model, get_model
from .pace import Pace
from .page import Page, check_limit, open_cursor, seal_cursor
from .rows import (
    check_text,
    from_microseconds,
    load_checkpoints,
    load_trashed,
    metric_rows,
    metrics_from_json,
    metrics_to_json,
    split_number,
    tag_rows,
    to_microseconds,
)
from .session import ReadSession, WriteSession
from .shown import within_page
from .tables import checkpoints, idempotency_keys, metrics, models, removed_checkpoints, tags

NOT_KEPT = timedelta(0)
"""The time in the trash of a checkpoint that is purged at once."""

_AT_ONCE = 1_000

_RESTORED = "restored from the trash"

_c = removed_checkpoints.c
_in_trash = _c.checkpoint_id.is_not(None)
_REMOVED = select(removed_checkpoints).where(_c.model_id == bindparam("model_id"), _c.version == bindparam("version"))


def delete_checkpoint(w: WriteSession, name: ModelName, version: int, *, kept: timedelta = NOT_KEPT) -> Removal:
    """Remove a checkpoint, which then lies in the trash for the time ``kept``. Its version is never used again.

    Raises NotFound (``model-not-found``, ``checkpoint-not-found``), and Conflict (``checkpoint-in-use``) while an alias
    means it or a pin holds it.
    """
    checkpoint = resolve(w, name, str(version))
    held = _what_holds(checkpoint)
    if held is not None:
        raise Conflict(f"{name}@{version} {held}", code="checkpoint-in-use")
    now = datetime.now(UTC)
    removal = Removal(now, actor().name, "deleted", now + kept)
    remove(w, get_model(w, name).id, [checkpoint], removal)
    return removal


def _what_holds(checkpoint: Checkpoint) -> str | None:
    if checkpoint.aliases:
        which = "alias" if len(checkpoint.aliases) == 1 else "aliases"
        return f"has the {which} {', '.join(checkpoint.aliases[:10])}: move or remove them first"
    if checkpoint.pin is not None:
        why = "" if checkpoint.pin.reason is None else f" ({checkpoint.pin.reason})"
        return f"is pinned{why}: remove its pin first"
    return None


def remove(w: WriteSession, model_id: int, removed: Sequence[Checkpoint], removal: Removal) -> None:
    """Take visible checkpoints of one model out of sight: to the trash, or for good if ``removal`` leaves no time."""
    versions, ids = [one.version for one in removed], [one.id for one in removed]
    w.insert(removed_checkpoints, [_row_of(model_id, one, removal) for one in removed])
    for table in (metrics, tags):
        w.execute(delete(table).where(table.c.model_id == model_id, is_among(table.c.version, each_integer(versions))))
    these = each_integer(ids)
    w.execute(delete(idempotency_keys).where(is_among(idempotency_keys.c.checkpoint_id, these)))
    w.execute(update(checkpoints).where(is_among(checkpoints.c.id, these)).values(version=None))
    _count(w, model_id, removed, -1)
    if removal.purge_at <= removal.at:
        _purge(w, model_id, versions, removal.at)
        return
    for one in removed:
        record(w, EventKind.CHECKPOINT_TRASHED, one.model, one.version, detail={"reason": removal.reason})


def _row_of(model_id: int, one: Checkpoint, removal: Removal) -> dict[str, object]:
    loss, loss_nonfinite = split_number(one.loss)
    return {
        "model_id": model_id,
        "version": one.version,
        "checkpoint_id": one.id,
        "run": one.run,
        "epoch": one.epoch,
        "step": one.step,
        "loss": loss,
        "loss_nonfinite": loss_nonfinite,
        "metrics": metrics_to_json(one.metrics),
        "tags": dict(one.tags),
        "created_at": to_microseconds(one.created_at),
        "removed_at": to_microseconds(removal.at),
        "removed_by": removal.by,
        "reason": removal.reason,
        "purge_at": to_microseconds(removal.purge_at),
    }


def _count(w: WriteSession, model_id: int, these: Sequence[Checkpoint], change: Literal[-1, 1]) -> None:
    """Add checkpoints to the counters of their model, its runs, and their namespace, or subtract them."""
    nbytes, new_bytes = sum(one.nbytes for one in these), sum(one.new_bytes for one in these)
    more = update(models).where(models.c.id == model_id)
    w.execute(
        more.values(
            checkpoints=models.c.checkpoints + change * len(these),
            nbytes=models.c.nbytes + change * nbytes,
            new_bytes=models.c.new_bytes + change * new_bytes,
        )
    )
    runs.count_live(w, model_id, (one.run for one in these), change)
    namespace = these[0].model.namespace
    namespaces.count(w, namespace, checkpoints=change * len(these), logical_bytes=change * nbytes)


def restore(w: WriteSession, name: ModelName, version: int) -> Checkpoint:
    """Bring a checkpoint back from the trash, and its model too if that was deleted. A visible one stays as it is.

    One that the server itself had removed is pinned, or the same rule would remove it again.

    Raises NotFound (``model-not-found``, ``checkpoint-not-found``), Gone (``checkpoint-purged``), and QuotaExceeded.
    """
    model_id = existing_model(w, name)
    row = _find(w, model_id, version)
    if row is None:
        return resolve(w, name, str(version))
    if row.checkpoint_id is None:
        raise Gone(
            f"{name}@{version} was purged at {from_microseconds(row.purge_at):%Y-%m-%d %H:%M:%S} UTC: its bytes are "
            "gone, only its numbers are kept, in the history",
            code="checkpoint-purged",
        )
    back: dict[str, object] = {"version": version, "slot": None, "expires_at": None}
    if row.reason != "deleted":
        back |= {"pinned_at": to_microseconds(datetime.now(UTC)), "pinned_by": actor().name, "pin_reason": _RESTORED}
    w.execute(update(checkpoints).where(checkpoints.c.id == row.checkpoint_id).values(back))
    key = {"model_id": model_id, "version": version, "run": row.run}
    w.insert(metrics, metric_rows(key, metrics_from_json(row.metrics)))
    w.insert(tags, tag_rows(key, row.tags))
    w.execute(delete(removed_checkpoints).where(*_is(model_id, version)))
    w.execute(update(models).where(models.c.id == model_id).values(deleted_at=None))
    restored = load_checkpoints(w, name, model_id, [version])
    _count(w, model_id, restored, 1)
    record(w, EventKind.CHECKPOINT_RESTORED, name, version)
    return restored[0]


def list_trash(
    s: ReadSession, name: ModelName, *, run: str | None = None, limit: int = 50, cursor: str | None = None
) -> Page[Checkpoint]:
    """One page of the checkpoints in the trash, newest version first.

    Raises NotFound (``model-not-found``) and InvalidRequest (``bad-limit``, ``bad-cursor``, ``bad-text``).
    """
    model_id = existing_model(s, name)
    listing = repr(("trash", model_id, run))
    statement = select(_c.version).where(_c.model_id == model_id, _in_trash).order_by(_c.version.desc())
    if run is not None:
        statement = statement.where(_c.run == check_text(run, "run"))
    if cursor is not None:
        (before,) = open_cursor(cursor, listing, (int,))
        statement = statement.where(_c.version < before)
    versions = s.select(statement.limit(check_limit(limit) + 1)).scalars().all()
    items = within_page(versions[:limit], lambda some: load_trashed(s, name, model_id, some))
    more = len(items) < len(versions)
    return Page(items, seal_cursor(listing, [items[-1].version]) if more else None)


def removal_of(s: ReadSession, model_id: int, version: int) -> tuple[Removal, bool] | None:
    """The removal of a version, and whether it was purged since; None for one that was not removed."""
    row = _find(s, model_id, version)
    if row is None:
        return None
    at, until = from_microseconds(row.removed_at), from_microseconds(row.purge_at)
    return Removal(at, row.removed_by, row.reason, until), row.checkpoint_id is None


def purge_checkpoint(w: WriteSession, name: ModelName, version: int) -> None:
    """Purge a checkpoint that is in the trash now. Raises NotFound (``model-not-found``, ``checkpoint-not-found``)."""
    model_id = existing_model(w, name)
    if not _purge(w, model_id, [version], datetime.now(UTC)):
        raise NotFound(f"{name}@{version} is not in the trash", code="checkpoint-not-found")


def purge(catalog: Catalog, until: datetime, go_on: Callable[[], None]) -> int:
    """Purge what is in the trash and was to stay there until ``until`` at most, and return the number of checkpoints.
    Works in short transactions.
    """
    count = 0
    pace = Pace(20, _AT_ONCE)
    for due in pace.slices(_due(catalog, until)):
        go_on()
        by_model: defaultdict[int, list[int]] = defaultdict(list)
        for model_id, version in due:
            by_model[model_id].append(version)
        with catalog.turn(pace=pace) as w:
            for model_id, versions in by_model.items():
                count += _purge(w, model_id, versions, datetime.now(UTC), until)
    return count


def count_due(s: ReadSession, until: datetime) -> int:
    """The number of checkpoints that ``purge`` would purge."""
    due = select(func.count()).select_from(removed_checkpoints).where(_is_due(until))
    return int(s.select(due).scalar_one())


def _due(catalog: Catalog, until: datetime) -> Iterator[tuple[int, int]]:
    place = _c.purge_at, _c.model_id, _c.version
    found = by_page(catalog, select(*place).where(_is_due(until)), *place)
    return ((row.model_id, row.version) for row in found)


def _is_due(until: datetime | None) -> ColumnElement[bool]:
    return _in_trash if until is None else and_(_in_trash, _c.purge_at <= to_microseconds(until))


def _purge(
    w: WriteSession, model_id: int, versions: Sequence[int], now: datetime, until: datetime | None = None
) -> int:
    """Purge checkpoints of a model, unless they were restored meanwhile, and return the number that were there."""
    these = _c.model_id == model_id, is_among(_c.version, each_integer(versions))
    rows = w.select(select(_c.version, _c.checkpoint_id, _c.reason).where(*these, _is_due(until))).all()
    if not rows:
        return 0
    purged = _c.model_id == model_id, is_among(_c.version, each_integer([row.version for row in rows]))
    emptied = update(removed_checkpoints).where(*purged)
    w.execute(emptied.values(checkpoint_id=null(), tags={}, purge_at=to_microseconds(now)))
    unfinished.drop_now(w, [row.checkpoint_id for row in rows])
    model = ModelName(*w.select(select(models.c.namespace, models.c.name).where(models.c.id == model_id)).one())
    for row in rows:
        record(w, EventKind.CHECKPOINT_PURGED, model, row.version, detail={"reason": row.reason})
    return len(rows)


def _find(s: ReadSession, model_id: int, version: int) -> Row[*tuple[Any, ...]] | None:
    return s.select(_REMOVED, model_id=model_id, version=version).first()


def _is(model_id: int, version: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _c.model_id == model_id, _c.version == version
