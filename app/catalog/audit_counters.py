"""Queries of the full check (fsck) that compare counters with the rows they count.

Each reads all checkpoints or blobs, in one statement or one snapshot, so that a commit beside it causes no false alarm.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, literal, or_, select

from ..values.checkpoint import ModelName
from .session import ReadSession
from .tables import blobs, checkpoints, models, namespaces, removed_checkpoints, runs

_NONE = {"checkpoints": 0, "logical_bytes": 0, "stored_bytes": 0}
_OF_A_RUN = ("first", "latest", "checkpoints", "live")


def wrong_models(s: ReadSession) -> list[tuple[ModelName, str]]:
    """The models whose rows disagree with their checkpoints, each with the difference as text."""
    c, m = checkpoints.c, models.c
    there = (
        select(
            c.model_id,
            func.count(c.version).label("checkpoints"),
            func.coalesce(func.sum(c.nbytes), 0).label("nbytes"),
            func.coalesce(func.sum(c.new_bytes), 0).label("new_bytes"),
            func.max(c.version).label("highest"),
        )
        .where(c.version.is_not(None))
        .group_by(c.model_id)
        .subquery()
    )
    counted = [func.coalesce(there.c[name], 0) for name in ("checkpoints", "nbytes", "new_bytes", "highest")]
    says = m.checkpoints, m.nbytes, m.new_bytes, m.next_version
    differs = [said != real for said, real in zip(says[:3], counted[:3], strict=True)]
    rows = s.select(
        select(m.namespace, m.name, *says, *counted)
        .outerjoin(there, there.c.model_id == m.id)
        .where(or_(*differs, m.next_version <= counted[3]))
        .order_by(m.namespace, m.name)
    )
    return [(ModelName(row[0], row[1]), _difference_of_model(*map(int, row[2:]))) for row in rows]


def _difference_of_model(number: int, nbytes: int, new_bytes: int, next_version: int, *real: int) -> str:
    return (
        f"its row has {number:,} checkpoints of {nbytes:,} bytes, {new_bytes:,} of them new, and next version "
        f"{next_version}; there are {real[0]:,} checkpoints of {real[1]:,} bytes, {real[2]:,} of them new, up to "
        f"version {real[3]}"
    )


def wrong_runs(s: ReadSession) -> list[tuple[ModelName, str]]:
    """The models with runs whose counters disagree with their checkpoints, each with the first difference as text.

    Keeps all runs in memory.
    """
    c, r = checkpoints.c, removed_checkpoints.c
    live = select(c.model_id, c.run, c.version, literal(1).label("live")).where(c.version.is_not(None))
    ever = live.union_all(select(r.model_id, r.run, r.version, literal(0))).subquery().c
    numbers = func.min(ever.version), func.max(ever.version), func.count(), func.sum(ever.live)
    real = _by_run(s.select(select(ever.model_id, ever.run, *numbers).group_by(ever.model_id, ever.run)))
    said = _by_run(s.select(select(runs.c.model_id, runs.c.run, *(runs.c[name] for name in _OF_A_RUN))))
    wrong: dict[int, str] = {}
    for key in sorted({*real, *said}, key=repr):
        if real.get(key) != said.get(key):
            wrong.setdefault(key[0], f"of the run {key[1]!r}, {_OF_A_RUN} are {said.get(key)}, not {real.get(key)}")
    named = select(models.c.id, models.c.namespace, models.c.name).where(models.c.id.in_(wrong))
    return (
        [(ModelName(row[1], row[2]), wrong[row[0]]) for row in s.select(named.order_by(models.c.id))] if wrong else []
    )


def _by_run(rows: Any) -> Mapping[tuple[int, str | None], tuple[int, ...]]:
    return {(row[0], row[1]): tuple(map(int, row[2:])) for row in rows}


def wrong_namespaces(s: ReadSession) -> list[tuple[str, str]]:
    """The namespaces whose counters disagree with their rows, each with the difference as text."""
    n = namespaces.c
    said = {row.namespace: row._asdict() for row in s.select(select(n.namespace, *(n[name] for name in _NONE)))}
    there: dict[str, dict[str, int]] = {}
    held = (
        select(models.c.namespace, func.count().label("number"), func.sum(checkpoints.c.nbytes).label("nbytes"))
        .join(checkpoints, checkpoints.c.model_id == models.c.id)
        .where(checkpoints.c.version.is_not(None))
        .group_by(models.c.namespace)
    )
    for name, number, nbytes in s.select(held):
        there[name] = {**_NONE, "checkpoints": number, "logical_bytes": int(nbytes)}
    for name, length in s.select(select(blobs.c.namespace, func.sum(blobs.c.length)).group_by(blobs.c.namespace)):
        there.setdefault(name, {**_NONE})["stored_bytes"] = int(length)
    return [
        (name, ", ".join(f"{each} is {counted[each]:,} but should be {real[each]:,}" for each in wrong))
        for name in sorted({*said, *there})
        for counted, real in [(said.get(name, _NONE), there.get(name, _NONE))]
        if (wrong := [each for each in _NONE if counted[each] != real[each]])
    ]
