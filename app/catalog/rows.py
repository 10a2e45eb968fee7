"""Conversion between database rows and values: numbers, times, text, components."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, Text, bindparam, cast, func, null, select

from ..errors import InvalidRequest
from ..values.checkpoint import Checkpoint, CheckpointName, ModelName, Pin, Removal, parse_checkpoint_name
from ..values.digest import Digest
from ..values.lineage import Relation
from ..values.manifest import Component
from .lists import each_integer, is_among
from .merges import merge_from_json
from .session import ReadSession
from .shown import MAX_COMPONENTS, shown_components, shown_names
from .tables import aliases, checkpoints, lineage, metrics, removed_checkpoints, tags

MAX_INTEGER = 2**63 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    return _EPOCH + count * _MICROSECOND


def time_or_none(count: int | None) -> datetime | None:
    return None if count is None else from_microseconds(count)


def split_number(number: float | None) -> tuple[float | None, str | None]:
    """Split a number into (finite value, text of a non-finite value). At least one of them is None."""
    if number is None:
        return None, None
    return (float(number), None) if math.isfinite(number) else (None, str(float(number)))


def join_number(value: float | None, nonfinite: str | None) -> float | None:
    return value if nonfinite is None else float(nonfinite)


def check_text(text: str, what: str) -> str:
    """Return ``text``. Raises InvalidRequest, code ``bad-text``, for text that not every database can store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidRequest(f"{what} must be Unicode text without NUL characters", code="bad-text")
    return text


def check_integer(number: int | None, what: str) -> int | None:
    """Return ``number``. Raises InvalidRequest, code ``bad-number``, beyond 64 bits."""
    if number is not None and abs(number) > MAX_INTEGER:
        raise InvalidRequest(f"{what} must be an integer of at most 64 bits", code="bad-number")
    return number


MAX_FIELDS = 1_000
MAX_NAME_LENGTH = 200
MAX_TAG_LENGTH = 10_000
MAX_TAGS_LENGTH = 256 * 1024
"""Limits, because every listing shows these: number of metrics or of tags of one checkpoint; characters in a name, in
a tag's value, and in all tags.
"""

MAX_RUN_LENGTH = 1_000


def check_fields(metrics: Mapping[str, float | None], tags: Mapping[str, str | None]) -> None:
    """Check metrics and tags. Raises InvalidRequest for those that could not be stored or queried."""
    for kind, names in (("metric", metrics), ("tag", tags)):
        if len(names) > MAX_FIELDS:
            raise InvalidRequest(
                f"{len(names):,} {kind}s; a checkpoint may have at most {MAX_FIELDS:,}", code=f"bad-{kind}"
            )
        for name in names:
            if not 0 < len(check_text(name, f"the name of a {kind}")) <= MAX_NAME_LENGTH:
                detail = f"the name of a {kind} must have 1 to {MAX_NAME_LENGTH} characters"
                raise InvalidRequest(detail, code=f"bad-{kind}")
    if "loss" in metrics:
        raise InvalidRequest(
            "loss is not a metric, but a field of the checkpoint that is set at upload", code="bad-metric"
        )
    for name, text in tags.items():
        if text is not None and len(check_text(text, f"the tag {name}")) > MAX_TAG_LENGTH:
            detail = f"the tag {name} has {len(text):,} characters; at most {MAX_TAG_LENGTH:,}"
            raise InvalidRequest(detail, code="bad-tag")

    length = sum(len(name) + len(text or "") for name, text in tags.items())
    if length > MAX_TAGS_LENGTH:
        raise InvalidRequest(
            f"the tags have {length:,} characters; all tags of a checkpoint may have at most {MAX_TAGS_LENGTH:,}",
            code="bad-tag",
        )


def check_run(run: str | None) -> None:
    """Check a run's name. Raises InvalidRequest, code ``bad-text``."""
    if run is not None and len(check_text(run, "run")) > MAX_RUN_LENGTH:
        raise InvalidRequest(f"run has {len(run):,} characters; at most {MAX_RUN_LENGTH:,}", code="bad-text")


def check_slot(slot: str | None) -> None:
    """Check a slot's name. Raises InvalidRequest, code ``bad-text``."""
    if slot is not None and not 0 < len(check_text(slot, "slot")) <= MAX_NAME_LENGTH:
        raise InvalidRequest(f"slot must have 1 to {MAX_NAME_LENGTH} characters", code="bad-text")


def metric_rows(key: Mapping[str, Any], metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rows for ``metrics``; ``key`` holds model_id, version and run."""
    rows = []
    for name, number in metrics.items():
        value, nonfinite = split_number(number)
        rows.append({**key, "name": name, "value": value, "nonfinite": nonfinite})
    return rows


def tag_rows(key: Mapping[str, Any], tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows for ``tags``; ``key`` holds model_id, version and run."""
    return [{**key, "name": name, "value": value} for name, value in tags.items()]


def components_to_json(components: Sequence[Component]) -> Any:
    """The shown components as JSON, with the total number if some are left out."""
    shown = [_component_to_json(component) for component in shown_components(components)]
    return shown if len(shown) == len(components) else {"shown": shown, "count": len(components)}


def components_from_json(data: Any) -> tuple[tuple[Component, ...], int]:
    """The shown components, and the number of further ones. Older catalogs hold all components."""
    listed, count = (data["shown"], data["count"]) if isinstance(data, dict) else (data, len(data))
    shown = shown_components([_component_from_json(each) for each in listed[:MAX_COMPONENTS]])
    return shown, count - len(shown)


def _component_to_json(component: Component) -> dict[str, Any]:
    return {
        "path": list(component.path),
        "kind": component.kind,
        "keys": component.keys,
        "nbytes": component.nbytes,
        **({"named_only": True} if component.named_only else {}),
    }


def _component_from_json(data: Mapping[str, Any]) -> Component:
    return Component(
        path=tuple(data["path"]),
        kind=data["kind"],
        keys=data["keys"],
        nbytes=data["nbytes"],
        named_only=data.get("named_only", False),
    )


def _of_versions(table: Table, *columns: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
    versions = each_integer(bindparam("versions", type_=Text))
    return select(*columns).where(table.c.model_id == bindparam("model_id"), is_among(table.c.version, versions))


def aliases_of() -> ColumnElement[str]:
    """The column ``aliases`` of a query of checkpoints: the names, with spaces between them."""
    names = select(func.aggregate_strings(aliases.c.name, " "))
    its = aliases.c.model_id == checkpoints.c.model_id, aliases.c.version == checkpoints.c.version
    return names.where(*its).scalar_subquery().label("aliases")


def _origins(version: ColumnElement[int]) -> Iterator[ColumnElement[str]]:
    """The names of the checkpoints that the checkpoint of ``version`` names by each relation, or null."""
    c = lineage.c
    this = c.namespace == bindparam("namespace"), c.name == bindparam("name"), c.version == version
    named = select(c.parent_namespace + "/" + c.parent_name + "@" + cast(c.parent_version, Text)).where(*this)
    relations: tuple[Relation, ...] = ("parent", "warm_started_from")
    for relation in relations:
        yield named.where(c.relation == relation).scalar_subquery().label(relation)


_CHECKPOINTS = _of_versions(checkpoints, *checkpoints.c, aliases_of(), *_origins(checkpoints.c.version))
_REMOVED = _of_versions(
    removed_checkpoints,
    *(column for column in checkpoints.c if column.name != "version"),
    removed_checkpoints.c.version,
    *(removed_checkpoints.c[name] for name in ("metrics", "tags", "removed_at", "removed_by", "reason", "purge_at")),
    null().label("aliases"),
    *_origins(removed_checkpoints.c.version),
).join(checkpoints, checkpoints.c.id == removed_checkpoints.c.checkpoint_id)
_METRICS = _of_versions(metrics, metrics.c.version, metrics.c.name, metrics.c.value, metrics.c.nonfinite)
_TAGS = _of_versions(tags, tags.c.version, tags.c.name, tags.c.value)


def load_checkpoints(s: ReadSession, name: ModelName, model_id: int, versions: list[int]) -> tuple[Checkpoint, ...]:
    """The checkpoints of the existing ``versions``, in that order, in three statements."""
    if not versions:
        return ()
    wanted = {"model_id": model_id, "versions": json.dumps(versions)}
    rows = {row.version: row for row in s.select(_CHECKPOINTS, **wanted, namespace=name.namespace, name=name.name)}
    numbers = load_metrics(s, model_id, versions)
    texts: dict[int, dict[str, str]] = {version: {} for version in versions}
    for version, tag, value in s.select(_TAGS, **wanted):
        texts[version][tag] = value
    return tuple(_checkpoint(name, rows[version], numbers[version], texts[version]) for version in versions)


def load_metrics(s: ReadSession, model_id: int, versions: list[int]) -> dict[int, dict[str, float]]:
    """The metrics of each of the visible ``versions``, in one statement."""
    numbers: dict[int, dict[str, float]] = {version: {} for version in versions}
    if versions:
        for row in s.select(_METRICS, model_id=model_id, versions=json.dumps(versions)):
            numbers[row.version][row.name] = row.value if row.nonfinite is None else float(row.nonfinite)
    return numbers


def load_trashed(s: ReadSession, name: ModelName, model_id: int, versions: list[int]) -> tuple[Checkpoint, ...]:
    """The checkpoints of ``versions`` that are in the trash, in that order, in one statement."""
    wanted = {"model_id": model_id, "versions": json.dumps(versions), "namespace": name.namespace, "name": name.name}
    rows = {row.version: row for row in s.select(_REMOVED, **wanted)}
    return tuple(
        replace(
            _checkpoint(name, row, metrics_from_json(row.metrics), row.tags),
            removal=Removal(
                from_microseconds(row.removed_at), row.removed_by, row.reason, from_microseconds(row.purge_at)
            ),
        )
        for version in versions
        if (row := rows.get(version)) is not None
    )


def metrics_to_json(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Metrics as JSON, which has no number that is not finite."""
    return {name: value if math.isfinite(value) else str(value) for name, value in metrics.items()}


def metrics_from_json(data: Mapping[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in data.items()}


def _checkpoint(
    model: ModelName, row: Row[*tuple[Any, ...]], metrics: Mapping[str, float], tags: Mapping[str, str]
) -> Checkpoint:
    components, more_components = components_from_json(row.components)
    return Checkpoint(
        id=row.id,
        model=model,
        version=row.version,
        run=row.run,
        epoch=row.epoch,
        step=row.step,
        loss=join_number(row.loss, row.loss_nonfinite),
        metrics=dict(sorted(metrics.items())),
        tags=dict(sorted(tags.items())),
        aliases=tuple(sorted((row.aliases or "").split())),
        format=row.format,
        devices=shown_names(row.devices),
        components=components,
        more_components=more_components,
        unsafe_globals=shown_names(row.unsafe_globals),
        manifest=Digest(row.manifest),
        frame=Digest(row.frame),
        nbytes=row.nbytes,
        new_bytes=row.new_bytes,
        digest=Digest(row.digest) if row.digest else None,
        sha256=row.sha256 or None,
        original=row.original,
        created_at=from_microseconds(row.created_at),
        parent=_origin_of(row.parent),
        warm_started_from=_origin_of(row.warm_started_from),
        pin=None if row.pinned_at is None else Pin(row.pin_reason, from_microseconds(row.pinned_at), row.pinned_by),
        slot=row.slot,
        expires_at=time_or_none(row.expires_at),
        thinned_at=time_or_none(row.thinned_at),
        nonfinite_tensors=row.nonfinite_tensors,
        merge=None if row.merge is None else merge_from_json(row.merge),
    )


def _origin_of(text: str | None) -> CheckpointName | None:
    return None if text is None else parse_checkpoint_name(text)
