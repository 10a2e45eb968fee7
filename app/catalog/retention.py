"""Retention in the catalog: the rules of models, their candidates, and the removal of what no rule keeps."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, Text, bindparam, delete, func, or_, select, update

from ..values.checkpoint import Checkpoint, ModelName, Removal, RemovalReason
from ..values.digest import Digest
from ..values.event import EventKind
from ..values.retention import KEEP_ALL, Candidate, Rules, Verdict, judge, rules_from_json, rules_to_json
from . import trash
from .catalog import Catalog
from .checkpoints import resolve
from .events import record
from .lists import each_integer, each_text, is_among
from .making import parents_in_use
from .models import get_model
from .pace import Pace
from .rows import aliases_of, from_microseconds, load_checkpoints, time_or_none, to_microseconds
from .session import ReadSession, WriteSession
from .tables import blobs, checkpoint_blobs, checkpoints, metrics, models, namespaces

EVERY_RUN: Any = ...

AT_ONCE = 1_000
"""Most checkpoints removed in one transaction."""

_c = checkpoints.c
_CANDIDATES = select(
    _c.version,
    _c.run,
    _c.epoch,
    _c.step,
    _c.loss,
    _c.created_at,
    _c.slot,
    _c.expires_at,
    _c.pinned_at,
    _c.thinned_at,
    _c.optimizer_bytes,
    aliases_of(),
).where(_c.model_id == bindparam("model_id"), _c.version.is_not(None))
_VALUES = select(metrics.c.version, metrics.c.value).where(
    metrics.c.model_id == bindparam("model_id"), metrics.c.name == bindparam("name"), metrics.c.value.is_not(None)
)
_THERE = (
    select(_c.version)
    .where(_c.model_id == bindparam("model_id"), is_among(_c.version, each_integer(bindparam("versions", type_=Text))))
    .order_by(_c.version)
)
_one, _newer = checkpoints.alias("one"), checkpoints.alias("newer")
_later = _newer.c.model_id == _one.c.model_id, _newer.c.version > _one.c.version
_NEWEST = select(_one.c.version).where(
    _one.c.model_id == bindparam("model_id"),
    is_among(_one.c.version, each_integer(bindparam("versions", type_=Text))),
    # Not IS NOT DISTINCT FROM, for which PostgreSQL uses no index.
    ~select(_newer.c.id).where(*_later, _newer.c.run == _one.c.run).exists(),
    ~select(_newer.c.id).where(*_later, _newer.c.run.is_(None), _one.c.run.is_(None)).exists(),
)
_OF_NAMESPACE = select(namespaces.c.retention).where(namespaces.c.namespace == bindparam("namespace"))
_HAS_RULES = (
    select(models.c.id)
    .outerjoin(namespaces, namespaces.c.namespace == models.c.namespace)
    .where(models.c.namespace == bindparam("namespace"), models.c.name == bindparam("name"))
    .where(or_(models.c.retention.is_not(None), namespaces.c.retention.is_not(None)))
)
_UNKNOWN_BYTES = 1
"""The ``optimizer_bytes`` of a checkpoint of an older version: it may have some, and is looked into."""


def rules_of(s: ReadSession, name: ModelName) -> Rules | None:
    """The rules of a model, else those of its namespace, else None. Raises NotFound, code ``model-not-found``."""
    own = get_model(s, name).retention
    if own is not None:
        return own
    default = s.select(_OF_NAMESPACE, namespace=name.namespace).scalar()
    return None if default is None else rules_from_json(default)


def has_rules(s: ReadSession, name: ModelName) -> bool:
    """Tell whether a model that exists, or its namespace, has rules."""
    return s.select(_HAS_RULES, namespace=name.namespace, name=name.name).first() is not None


def set_rules(w: WriteSession, name: ModelName, rules: Rules | None) -> None:
    """Set or remove the rules of a model. Raises NotFound, code ``model-not-found``."""
    document = None if rules is None else rules_to_json(rules)
    w.execute(update(models).where(models.c.id == get_model(w, name).id).values(retention=document))
    record(w, EventKind.RETENTION_CHANGED, name)


def verdict_of(
    s: ReadSession, name: ModelName, rules: Rules | None, now: datetime, run: str | None = EVERY_RUN
) -> Verdict:
    """Judge a model's checkpoints, or those of one run, by ``rules``. Raises NotFound."""
    rules = rules or KEEP_ALL
    return judge(_candidates(s, name, rules, run), rules, now)


def _candidates(s: ReadSession, name: ModelName, rules: Rules, run: str | None) -> Iterator[Candidate]:
    def of_run(statement: Select[*tuple[Any, ...]], column: Any) -> Select[*tuple[Any, ...]]:
        return statement if run is EVERY_RUN else statement.where(column.is_(None) if run is None else column == run)

    model_id, in_use = get_model(s, name).id, parents_in_use(s, name)
    values: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for metric in rules.metrics - {"loss"}:
        for version, value in s.select(of_run(_VALUES, metrics.c.run), model_id=model_id, name=metric):
            values[version][metric] = value
    for row in s.select(of_run(_CANDIDATES, _c.run), model_id=model_id):
        own = values.get(row.version, {})
        if row.loss is not None and "loss" in rules.metrics:
            own = {**own, "loss": row.loss}
        yield Candidate(
            version=row.version,
            created_at=from_microseconds(row.created_at),
            run=row.run,
            epoch=row.epoch,
            step=row.step,
            values=own,
            holders=_holders(row, is_parent=row.version in in_use),
            slot=row.slot,
            expires_at=time_or_none(row.expires_at),
            optimizer_bytes=_optimizer_bytes(row),
        )


def _holders(row: Row[*tuple[Any, ...]], *, is_parent: bool) -> tuple[str, ...]:
    names = [f"alias {name}" for name in sorted((row.aliases or "").split())]
    if row.pinned_at is not None:
        names.append("pin")
    if is_parent:
        names.append("parent of a running upload")
    return tuple(names)


def _optimizer_bytes(row: Row[*tuple[Any, ...]]) -> int:
    if row.thinned_at is not None:
        return 0
    return _UNKNOWN_BYTES if row.optimizer_bytes is None else int(row.optimizer_bytes)


def remove_unkept(
    catalog: Catalog,
    name: ModelName,
    kept: timedelta,
    go_on: Callable[[], None],
    run: str | None = EVERY_RUN,
) -> tuple[int, Sequence[int]]:
    """Move to the trash, for the time ``kept``, what nothing keeps; return the number, and the versions to be thinned.

    Each short transaction looks again: a checkpoint that was held since, or has become the newest of its run, stays.
    """
    with catalog.read() as s:
        verdict = verdict_of(s, name, rules_of(s, name), datetime.now(UTC), run)
    removed = 0
    pace = Pace(10, AT_ONCE)
    for versions in pace.slices(sorted(verdict.removed)):
        go_on()
        with catalog.turn(name.namespace, pace) as w:
            removed += _remove(w, name, {version: verdict.removed[version] for version in versions}, kept)
    return removed, verdict.thinned


def _remove(w: WriteSession, name: ModelName, unkept: Mapping[int, RemovalReason], kept: timedelta) -> int:
    now, model_id = datetime.now(UTC), get_model(w, name).id
    there = w.select(_THERE, model_id=model_id, versions=json.dumps(list(unkept))).scalars().all()
    newest = set(w.select(_NEWEST, model_id=model_id, versions=json.dumps(list(unkept))).scalars())
    in_use = parents_in_use(w, name)
    by_reason: defaultdict[RemovalReason, list[Checkpoint]] = defaultdict(list)
    for one in load_checkpoints(w, name, model_id, list(there)):
        reason = unkept[one.version]
        is_held = one.aliases or one.pin is not None or one.version in in_use
        is_held = is_held or (reason == "retention" and one.version in newest)
        if not is_held:
            by_reason[reason].append(one)
    for reason, these in by_reason.items():
        trash.remove(w, model_id, these, Removal(now, None, reason, now + kept))
    return sum(map(len, by_reason.values()))


def models_to_tidy(s: ReadSession, now: datetime) -> Sequence[ModelName]:
    """The models with rules, with slots, or with a checkpoint that has expired."""
    is_over = _c.expires_at <= to_microseconds(now), _c.version.is_not(None)
    expired = select(_c.model_id).where(*is_over)
    slotted = select(_c.model_id).where(_c.slot.is_not(None), _c.version.is_not(None))
    ruled = select(namespaces.c.namespace).where(namespaces.c.retention.is_not(None))
    has_rules = or_(models.c.retention.is_not(None), models.c.namespace.in_(ruled))
    wanted = or_(has_rules, models.c.id.in_(expired), models.c.id.in_(slotted))
    rows = s.select(select(models.c.namespace, models.c.name).where(wanted, models.c.deleted_at.is_(None)))
    return [ModelName(row.namespace, row.name) for row in rows]


def thin(w: WriteSession, checkpoint: Checkpoint, digests: Sequence[Digest]) -> bool:
    """Drop a checkpoint's references to the blobs of its optimizers, and return whether it was still there to be
    thinned. Without any, it is only noted that there are none.
    """
    now = resolve(w, checkpoint.model, str(checkpoint.version))
    if now.thinned_at is not None or now.aliases or now.pin is not None:
        return False
    if now.version in parents_in_use(w, now.model):
        return False
    this = update(checkpoints).where(_c.id == checkpoint.id)
    if not digests:
        w.execute(this.values(optimizer_bytes=0))
        return False
    these = select(blobs.c.id).where(
        blobs.c.namespace == checkpoint.model.namespace, is_among(blobs.c.digest, each_text(digests))
    )
    gone = checkpoint_blobs.c.checkpoint_id == checkpoint.id, checkpoint_blobs.c.blob_id.in_(these)
    w.execute(delete(checkpoint_blobs).where(*gone))
    w.execute(this.values(thinned_at=to_microseconds(datetime.now(UTC))))
    record(w, EventKind.CHECKPOINT_THINNED, checkpoint.model, checkpoint.version)
    return True


def bytes_freed(s: ReadSession, name: ModelName, versions: Sequence[int]) -> int:
    """The bytes that only these checkpoints refer to: what is freed once they are purged."""
    model_id = get_model(s, name).id
    these = select(_c.id).where(_c.model_id == model_id, is_among(_c.version, each_integer(versions)))
    used = checkpoint_blobs.c.blob_id
    here = select(used).where(checkpoint_blobs.c.checkpoint_id.in_(these))
    others = select(used).where(used == blobs.c.id, checkpoint_blobs.c.checkpoint_id.not_in(these))
    freed = select(func.coalesce(func.sum(blobs.c.length), 0)).where(blobs.c.id.in_(here), ~others.exists())
    return int(s.select(freed).scalar_one())


def optimizer_bytes_of(s: ReadSession, name: ModelName, versions: Sequence[int]) -> int:
    """The bytes of these checkpoints' optimizers, which thinning frees unless other checkpoints refer to them."""
    this = _c.model_id == get_model(s, name).id, is_among(_c.version, each_integer(versions))
    return int(s.select(select(func.coalesce(func.sum(_c.optimizer_bytes), 0)).where(*this)).scalar_one())
