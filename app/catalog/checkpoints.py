"""Operations on checkpoints: resolving a ref, updating metrics and tags, pinning."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import delete as delete_from
from sqlalchemy import func, select
from sqlalchemy import update as update_table

from ..errors import InvalidRequest, NotFound
from ..values.actor import actor
from ..values.checkpoint import Checkpoint, ModelName
from ..values.event import EventKind
from .events import record
from .listing import Filter, Listing, list_checkpoints
from .lists import each_text, is_among
from .models import Model, get_model
from .page import Page
from .refs import Ref, parse_best, parse_ref, version_of
from .rows import check_fields, check_text, load_checkpoints, metric_rows, tag_rows, to_microseconds
from .session import ReadSession, WriteSession
from .tables import checkpoints, metrics, removed_checkpoints, tags

T = TypeVar("T")

__all__ = [
    "Filter",
    "Listing",
    "Page",
    "keep_sha256",
    "list_checkpoints",
    "pin",
    "resolve",
    "unpin",
    "update",
]


def resolve(s: ReadSession, name: ModelName, ref: str, run: str | None = None) -> Checkpoint:
    """The checkpoint that ``ref`` picks now, limited to the run ``run`` if given.

    Raises NotFound (``model-not-found``, ``checkpoint-not-found``) and InvalidRequest (``bad-ref``).
    """
    parsed = parse_ref(ref)
    if run is not None:
        check_text(run, "run")
    model = get_model(s, name)
    pick = parse_best(model.best) if parsed.kind == "best" else parsed
    version = version_of(s, pick, model.id, run)
    if version is not None:
        return load_checkpoints(s, name, model.id, [version])[0]
    raise NotFound(_what_exists(s, model, pick, run), code="checkpoint-not-found")


def update(
    w: WriteSession,
    name: ModelName,
    version: int,
    changed_metrics: Mapping[str, float | None],
    changed_tags: Mapping[str, str | None],
) -> Checkpoint:
    """Set metrics and tags, and remove those given as None. All other fields are fixed at upload.

    Raises NotFound (``model-not-found``, ``checkpoint-not-found``) and InvalidRequest (``bad-metric``, ``bad-tag``,
    ``bad-text``).
    """
    check_fields(changed_metrics, changed_tags)
    checkpoint = resolve(w, name, str(version))
    key = {"model_id": get_model(w, name).id, "version": version, "run": checkpoint.run}
    # Check the resulting checkpoint too, because the limits also bound the sum of many small changes.
    check_fields(_changed(checkpoint.metrics, changed_metrics), _changed(checkpoint.tags, changed_tags))
    new_metrics = {metric: value for metric, value in changed_metrics.items() if value is not None}
    new_tags = {tag: value for tag, value in changed_tags.items() if value is not None}
    for table, changed, rows in (
        (metrics, changed_metrics, metric_rows(key, new_metrics)),
        (tags, changed_tags, tag_rows(key, new_tags)),
    ):
        if changed:
            w.execute(
                delete_from(table).where(
                    table.c.model_id == key["model_id"],
                    table.c.version == version,
                    is_among(table.c.name, each_text(changed)),
                )
            )
            w.insert(table, rows)
    record(w, EventKind.CHECKPOINT_CHANGED, name, version)
    return resolve(w, name, str(version))


def _changed(there: Mapping[str, T], changes: Mapping[str, T | None]) -> dict[str, T | None]:
    merged: dict[str, T | None] = {**there, **changes}
    return {name: value for name, value in merged.items() if value is not None}


MAX_REASON_LENGTH = 1_000


def pin(w: WriteSession, name: ModelName, version: int, reason: str | None) -> Checkpoint:
    """Keep a checkpoint from removal until ``unpin``. A pin on a pinned checkpoint replaces the first.

    Raises NotFound (``model-not-found``, ``checkpoint-not-found``) and InvalidRequest (``bad-text``).
    """
    if reason is not None and len(check_text(reason, "reason")) > MAX_REASON_LENGTH:
        raise InvalidRequest(f"reason has {len(reason):,} characters; at most {MAX_REASON_LENGTH:,}", code="bad-text")
    now = to_microseconds(datetime.now(UTC))
    record(w, EventKind.CHECKPOINT_PINNED, name, version, detail={"reason": reason})
    return _set_pin(w, name, version, {"pinned_at": now, "pinned_by": actor().name, "pin_reason": reason})


def unpin(w: WriteSession, name: ModelName, version: int) -> Checkpoint:
    """Remove a checkpoint's pin, if it has one. Raises NotFound (``model-not-found``, ``checkpoint-not-found``)."""
    if resolve(w, name, str(version)).pin is not None:
        record(w, EventKind.CHECKPOINT_UNPINNED, name, version)
    return _set_pin(w, name, version, {"pinned_at": None, "pinned_by": None, "pin_reason": None})


def keep_sha256(w: WriteSession, checkpoint_id: int, sha256: str) -> None:
    """Keep the SHA-256 of a checkpoint's uploaded file, unless it is known already or the checkpoint is gone."""
    c = checkpoints.c
    w.execute(update_table(checkpoints).where(c.id == checkpoint_id, c.sha256 == "").values(sha256=sha256))


def _set_pin(w: WriteSession, name: ModelName, version: int, columns: Mapping[str, object]) -> Checkpoint:
    checkpoint = resolve(w, name, str(version))
    w.execute(update_table(checkpoints).where(checkpoints.c.id == checkpoint.id).values(columns))
    return resolve(w, name, str(version))


def _what_exists(s: ReadSession, model: Model, ref: Ref, run: str | None) -> str:
    """The error text for a ``ref`` that picks nothing: the reason, and the range that exists."""
    scope = [checkpoints.c.model_id == model.id, checkpoints.c.version.is_not(None)]
    where = str(model.name)
    if ref.kind == "version" and is_in_trash(s, model.id, ref.number):
        return f"{where}@{ref.number} is in the trash: restore it to use it again"
    if run is not None:
        scope.append(checkpoints.c.run == run)
        where += f" in run {run!r}"
    newest = s.select(select(func.max(checkpoints.c.version)).where(*scope)).scalar()
    if newest is None:
        return f"{where} has no checkpoints"
    match ref.kind:
        case "min" | "max":
            return f"{where} has no checkpoint with a finite {ref.name}"
        case "epoch" | "step":
            column = checkpoints.c[ref.kind]
            low, high = s.select(select(func.min(column), func.max(column)).where(*scope)).one()
            there = f"its {ref.kind}s go from {low} to {high}" if low is not None else f"none has any {ref.kind}"
            return f"{where} has no checkpoint of {ref.kind} {ref.number}; {there}"
        case "alias":
            return f"{where} has no alias {ref.name!r}; it has versions up to {newest}"
        case _:
            return f"{where} has no version {ref.number}; it has versions up to {newest}"


def is_in_trash(s: ReadSession, model_id: int, version: int) -> bool:
    c = removed_checkpoints.c
    this = select(c.version).where(c.model_id == model_id, c.version == version, c.checkpoint_id.is_not(None))
    return s.select(this).first() is not None
