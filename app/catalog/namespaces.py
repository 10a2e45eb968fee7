"""Namespaces: their quotas and rules, and counters of what they hold.

A counter changes in the transaction that changes the rows it counts, by what the database says about those rows. So
a crash leaves both or neither. One writer at a time changes a namespace: of uploads side by side, each sees what the
others have added, and none exceeds a quota. A quota refuses only growth: what is there when it is set stays.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, Select, bindparam, func, or_, select, update

from ..errors import HOW_TO_FREE, NotFound, QuotaExceeded
from ..values.event import EventKind
from ..values.namespace import Namespace
from ..values.retention import Rules, rules_from_json, rules_to_json
from .events import record
from .models import exists as model_exists
from .page import MAX_LIMIT, Page, check_limit, open_cursor, seal_cursor
from .session import ReadSession, WriteSession
from .tables import models, namespaces

QUOTAS = ("quota_bytes", "quota_checkpoints")

_MODELS = (
    select(func.count())
    .select_from(models)
    .where(models.c.namespace == namespaces.c.namespace, model_exists)
    .scalar_subquery()
)
_is_shown = or_(
    namespaces.c.checkpoints > 0,
    namespaces.c.stored_bytes > 0,
    namespaces.c.quota_bytes.is_not(None),
    namespaces.c.quota_checkpoints.is_not(None),
    namespaces.c.retention.is_not(None),
    _MODELS > 0,
)
_ALL = select(namespaces, _MODELS.label("models")).order_by(namespaces.c.namespace)
_ONE = _ALL.where(namespaces.c.namespace == bindparam("namespace"))
_COUNTERS: Select[*tuple[Any, ...]] = select(namespaces).where(namespaces.c.namespace == bindparam("namespace"))
_ADD = (
    update(namespaces)
    .where(namespaces.c.namespace == bindparam("name"))
    .values(
        checkpoints=namespaces.c.checkpoints + bindparam("more_checkpoints"),
        logical_bytes=namespaces.c.logical_bytes + bindparam("more_logical"),
        stored_bytes=namespaces.c.stored_bytes + bindparam("more_stored"),
    )
    .returning(namespaces)
)


def list_namespaces(
    s: ReadSession, *, limit: int = 50, cursor: str | None = None, only: frozenset[str] | None = None
) -> Page[Namespace]:
    """One page of the namespaces, by name; with ``only``, of at most those.

    Raises InvalidRequest, codes ``bad-limit`` and ``bad-cursor``.
    """
    statement, listing = _ALL.where(_is_shown), "namespaces"
    if only is not None:
        statement = statement.where(namespaces.c.namespace.in_(sorted(only)))
        listing = f"namespace {', '.join(sorted(only))}"
    if cursor is not None:
        (after,) = open_cursor(cursor, listing, (str,))
        statement = statement.where(namespaces.c.namespace > after)
    rows = s.select(statement.limit(check_limit(limit) + 1)).all()
    items = tuple(map(_namespace, rows[:limit]))
    return Page(items, seal_cursor(listing, [items[-1].name]) if len(rows) > limit else None)


def get_namespace(s: ReadSession, name: str) -> Namespace:
    """Return the namespace. Raises NotFound, code ``namespace-not-found``, if it holds nothing and has no quota."""
    row = s.select(_ONE.where(_is_shown), namespace=name).first()
    if row is None:
        raise NotFound(f"there is no namespace {name}: it holds nothing, and has no quota", code="namespace-not-found")
    return _namespace(row)


def quota_use(s: ReadSession) -> dict[tuple[str, str], float]:
    """The used part of each quota, 1.0 for a full one, by namespace and ``bytes`` or ``checkpoints``; the first of
    very many.
    """
    n = namespaces.c
    has_quota = or_(n.quota_bytes.is_not(None), n.quota_checkpoints.is_not(None))
    use: dict[tuple[str, str], float] = {}
    for row in s.select(select(namespaces).where(has_quota).order_by(n.namespace).limit(MAX_LIMIT)):
        if row.quota_bytes is not None:
            use[row.namespace, "bytes"] = row.stored_bytes / max(1, row.quota_bytes)
        if row.quota_checkpoints is not None:
            use[row.namespace, "checkpoints"] = row.checkpoints / max(1, row.quota_checkpoints)
    return use


def largest(s: ReadSession) -> dict[str, tuple[int, int]]:
    """Return the stored bytes and the checkpoints of each namespace that holds any; of very many, the largest."""
    n = namespaces.c
    holds = or_(n.checkpoints > 0, n.stored_bytes > 0)
    found = select(n.namespace, n.stored_bytes, n.checkpoints).where(holds)
    rows = s.select(found.order_by(n.stored_bytes.desc(), n.namespace).limit(MAX_LIMIT))
    return {row.namespace: (row.stored_bytes, row.checkpoints) for row in rows}


def set_quotas(w: WriteSession, name: str, quotas: Mapping[str, int | None]) -> Namespace:
    """Set the given ones of QUOTAS, and return the namespace; None removes a quota, and the others stay."""
    w.insert_or_keep(namespaces, [{"namespace": name}])
    if quotas:
        w.execute(update(namespaces).where(namespaces.c.namespace == name).values(**quotas))
        record(w, EventKind.QUOTA_CHANGED, detail={"namespace": name, **quotas})
    return _namespace(w.select(_ONE, namespace=name).one())


def set_retention(w: WriteSession, name: str, rules: Rules | None) -> Namespace:
    """Set or remove the rules of the models that have none of their own, and return the namespace."""
    w.insert_or_keep(namespaces, [{"namespace": name}])
    document = None if rules is None else rules_to_json(rules)
    w.execute(update(namespaces).where(namespaces.c.namespace == name).values(retention=document))
    record(w, EventKind.RETENTION_CHANGED, detail={"namespace": name})
    return _namespace(w.select(_ONE, namespace=name).one())


def count(w: WriteSession, name: str, *, checkpoints: int = 0, logical_bytes: int = 0, stored_bytes: int = 0) -> None:
    """Add to the counters. Raises QuotaExceeded if one grows beyond its quota: roll the transaction back."""
    w.must_cover(name)
    if not (checkpoints or logical_bytes or stored_bytes):
        return
    row = w.execute(
        _ADD, name=name, more_checkpoints=checkpoints, more_logical=logical_bytes, more_stored=stored_bytes
    ).first()
    if row is None:
        added = {"checkpoints": checkpoints, "logical_bytes": logical_bytes, "stored_bytes": stored_bytes}
        w.insert(namespaces, [{"namespace": name, **added}])
        return
    if checkpoints > 0 and _is_over(row.checkpoints, row.quota_checkpoints):
        raise _too_many(row, row.checkpoints - checkpoints)
    if stored_bytes > 0 and _is_over(row.stored_bytes, row.quota_bytes):
        raise _too_large(row, row.stored_bytes - stored_bytes, stored_bytes)


def check_room(s: ReadSession, name: str, nbytes: int) -> None:
    """Raise QuotaExceeded if the namespace has no room for one more checkpoint that adds ``nbytes``."""
    row = s.select(_COUNTERS, namespace=name).first()
    if row is None:
        return
    if _is_over(row.checkpoints + 1, row.quota_checkpoints):
        raise _too_many(row, row.checkpoints)
    if _is_over(row.stored_bytes + nbytes, row.quota_bytes):
        raise _too_large(row, row.stored_bytes, nbytes)


def _is_over(count: int, quota: int | None) -> bool:
    return quota is not None and count > quota


def _too_many(row: Row[*tuple[Any, ...]], there: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"the namespace {row.namespace} has {there:,} checkpoints, and its quota is {row.quota_checkpoints:,}. Delete "
        "checkpoints, or ask an admin for a larger quota."
    )


def _too_large(row: Row[*tuple[Any, ...]], there: int, added: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"the namespace {row.namespace} stores {there:,} bytes, the upload may add {added:,}, and the quota is "
        f"{row.quota_bytes:,} bytes. {HOW_TO_FREE}. Or ask an admin for a larger quota."
    )


def _namespace(row: Row[*tuple[Any, ...]]) -> Namespace:
    return Namespace(
        name=row.namespace,
        quota_bytes=row.quota_bytes,
        quota_checkpoints=row.quota_checkpoints,
        models=row.models,
        checkpoints=row.checkpoints,
        logical_bytes=row.logical_bytes,
        stored_bytes=row.stored_bytes,
        retention=None if row.retention is None else rules_from_json(row.retention),
    )
