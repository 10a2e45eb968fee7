"""Lineage: which checkpoint each checkpoint was trained, or computed, from.

An edge is a row of names, so it outlives both of its checkpoints: the way from a checkpoint to its grandparent stays
when retention deletes its parent. A reader limited to some namespaces follows no edge of a checkpoint in another
namespace: it learns only the names that checkpoints of its own namespaces give.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, cast

from sqlalchemy import Row, Select, and_, bindparam, case, func, select

from ..errors import InvalidRequest
from ..values.checkpoint import Checkpoint, CheckpointName, Fields, ModelName, NewCheckpoint
from ..values.lineage import Relation, Relative, Relatives
from .rows import time_or_none
from .session import ReadSession, WriteSession
from .tables import checkpoints, lineage, models
from .tables import removed_checkpoints as removed

MAX_RELATIVES = 1_000
"""Most ancestors, and most descendants, in one answer."""

_SHOWN = ("run", "epoch", "created_at")
_CHILD = (lineage.c.namespace, lineage.c.name, lineage.c.version)
_PARENT = (lineage.c.parent_namespace, lineage.c.parent_name, lineage.c.parent_version)
_NEXT_VERSION = select(models.c.next_version).where(
    models.c.namespace == bindparam("namespace"), models.c.name == bindparam("name")
)


def check_origins(s: ReadSession, fields: Fields, limit: frozenset[str] | None) -> None:
    """Raise InvalidRequest, code ``unknown-parent``, if a checkpoint that ``fields`` name never existed.

    With ``limit``, names in namespaces outside it are not looked up: the answer would tell what is there.
    """
    for field, origin in _origins(fields):
        if limit is not None and origin.model.namespace not in limit:
            continue
        next_version = s.select(_NEXT_VERSION, namespace=origin.model.namespace, name=origin.model.name).scalar() or 1
        if origin.version >= next_version:
            there = f"the newest version is {next_version - 1}" if next_version > 1 else "there is no such model"
            raise InvalidRequest(f"{field}={origin} never existed: {there}", code="unknown-parent")


def remember(w: WriteSession, new: NewCheckpoint, version: int) -> None:
    """Store the edges of a checkpoint that is being published."""
    child = {"namespace": new.model.namespace, "name": new.model.name, "version": version}
    w.postpone(
        lineage.insert(),
        [
            {
                **child,
                "relation": relation,
                "parent_namespace": origin.model.namespace,
                "parent_name": origin.model.name,
                "parent_version": origin.version,
                "position": position,
                "weight": weight,
            }
            for relation, position, origin, weight in _edges_of(new)
        ],
    )


def _edges_of(new: NewCheckpoint) -> Iterator[tuple[Relation, int, CheckpointName, float | None]]:
    for relation, origin in _origins(new):
        yield relation, 0, origin, None
    for position, source in enumerate(new.merge.sources if new.merge is not None else ()):
        yield "merged_from", position, source.checkpoint, source.weight


def _origins(given: Fields | NewCheckpoint) -> Iterator[tuple[Relation, CheckpointName]]:
    if given.parent is not None:
        yield "parent", given.parent
    if given.warm_started_from is not None:
        yield "warm_started_from", given.warm_started_from


def ancestors(s: ReadSession, checkpoint: Checkpoint, limit: frozenset[str] | None) -> Relatives:
    """Return what ``checkpoint`` was trained from; ``limit`` are the only namespaces that the reader may see."""
    return _relatives(s, checkpoint, limit, upwards=True)


def descendants(s: ReadSession, checkpoint: Checkpoint, limit: frozenset[str] | None) -> Relatives:
    """Return what was trained from ``checkpoint``; ``limit`` are the only namespaces that the reader may see."""
    return _relatives(s, checkpoint, limit, upwards=False)


def _relatives(s: ReadSession, checkpoint: Checkpoint, limit: frozenset[str] | None, *, upwards: bool) -> Relatives:
    start = CheckpointName(checkpoint.model, checkpoint.version)
    rows = s.select(
        _edges(upwards=upwards, limited=limit is not None),
        namespace=start.model.namespace,
        name=start.model.name,
        version=start.version,
        limit=sorted(limit or ()),
    ).all()
    items = tuple(islice(_nearest(start, rows, limit, upwards=upwards), MAX_RELATIVES))
    return Relatives(items, more=len(rows) > MAX_RELATIVES)


@cache
def _edges(*, upwards: bool, limited: bool) -> Select[*tuple[Any, ...]]:
    """Each edge above or below a checkpoint once, at most MAX_RELATIVES + 1, with the state of its far end.

    UNION drops edges that were found before, so the recursion ends although edges may form a circle. A database
    makes the rows of a recursion level by level, and only as many as are taken.
    """
    near, far = (_CHILD, _PARENT) if upwards else (_PARENT, _CHILD)
    start = [column == bindparam(column.key.removeprefix("parent_")) for column in near]
    seen = [lineage.c.namespace.in_(bindparam("limit", expanding=True))] if limited else []
    found = select(lineage).where(*start, *seen).cte("found", recursive=True)
    step = [column == found.c[end.key] for column, end in zip(near, far, strict=True)]
    found = found.union(select(lineage).where(*step, *seen))
    edges = select(found).limit(MAX_RELATIVES + 1).subquery("edges")
    namespace, name, version = (edges.c[column.key] for column in far)
    return (
        select(
            edges,
            models.c.next_version,
            *(func.coalesce(checkpoints.c[each], removed.c[each]).label(each) for each in _SHOWN),
            case(
                (checkpoints.c.id.is_not(None), "live"),
                (removed.c.checkpoint_id.is_not(None), "trashed"),
                else_="purged",
            ).label("state"),
        )
        .outerjoin(models, and_(models.c.namespace == namespace, models.c.name == name))
        .outerjoin(checkpoints, and_(checkpoints.c.model_id == models.c.id, checkpoints.c.version == version))
        .outerjoin(removed, and_(removed.c.model_id == models.c.id, removed.c.version == version))
    )


def _nearest(
    start: CheckpointName, rows: Iterable[Row[*tuple[Any, ...]]], limit: frozenset[str] | None, *, upwards: bool
) -> Iterator[Relative]:
    """Walk the edges from ``start``, nearest first, and yield each checkpoint once."""
    edges: dict[CheckpointName, list[tuple[CheckpointName, Row[*tuple[Any, ...]]]]] = {}
    for row in rows:
        child = CheckpointName(ModelName(row.namespace, row.name), row.version)
        parent = CheckpointName(ModelName(row.parent_namespace, row.parent_name), row.parent_version)
        near, far = (child, parent) if upwards else (parent, child)
        edges.setdefault(near, []).append((far, row))
    seen, level, depth = {start}, [start], 0
    while level:
        depth += 1
        near_ones, level = level, []
        for near in near_ones:
            for far, row in sorted(edges.get(near, ()), key=lambda edge: (_order(edge[0]), edge[1].relation)):
                if far not in seen:
                    seen.add(far)
                    level.append(far)
                    yield _relative(
                        far, row, depth, near, is_hidden=limit is not None and far.model.namespace not in limit
                    )


def _order(name: CheckpointName) -> tuple[str, str, int]:
    return name.model.namespace, name.model.name, name.version


def _relative(
    name: CheckpointName, row: Row[*tuple[Any, ...]], depth: int, via: CheckpointName, *, is_hidden: bool
) -> Relative:
    relation = cast("Relation", row.relation)
    if is_hidden or row.next_version is None or name.version >= row.next_version:
        return Relative(name, "unknown", relation, depth, via, weight=row.weight)
    return Relative(name, row.state, relation, depth, via, row.run, row.epoch, time_or_none(row.created_at), row.weight)
