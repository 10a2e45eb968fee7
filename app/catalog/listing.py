"""Listing a model's checkpoints: order, filters, keyset pages.

The order is total: by a field, then by newest version. Checkpoints without a finite value of the field come last,
newest first. So a listing has two sections, each a plain index scan. A page needs at most one statement for each.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, and_, exists, null, or_, select

from ..errors import InvalidRequest
from ..values.checkpoint import Checkpoint, ModelName
from .fields import Field, parse_field, parse_value
from .models import get_model
from .page import Page, check_limit, open_cursor, seal_cursor
from .rows import check_text, load_checkpoints
from .session import ReadSession
from .shown import within_page
from .tables import checkpoints, metrics, tags

_Compare = Callable[[Any, Any], ColumnElement[bool]]

_OPERATORS: dict[str, _Compare] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
MAX_FILTERS = 50

_TABLES = {"checkpoints": checkpoints, "metrics": metrics, "tags": tags}


@dataclass(frozen=True, slots=True)
class Filter:
    """A comparison of ``field`` with ``value``, the text in the query string. ``op`` is eq, lt, le, gt or ge.

    Null and non-finite values match no comparison.
    """

    field: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The parameters of a listing. ``order`` is a field (version, epoch, step, loss, created_at, run, slot, bytes,
    nonfinite_tensors, metric.NAME, tag.NAME), with a leading ``-`` for descending order. ``cursor`` is ``next`` of an
    earlier page.
    """

    run: str | None = None
    order: str = "-version"
    limit: int = 50
    cursor: str | None = None
    filters: tuple[Filter, ...] = ()


def list_checkpoints(s: ReadSession, name: ModelName, listing: Listing) -> Page[Checkpoint]:
    """One page of a listing. Raises NotFound (``model-not-found``), InvalidRequest (``bad-order``, ``bad-filter``,
    ``bad-cursor``, ``bad-limit``).
    """
    model = get_model(s, name)
    limit = check_limit(listing.limit)
    if len(listing.filters) > MAX_FILTERS:
        raise InvalidRequest(f"{len(listing.filters)} filters; at most {MAX_FILTERS} are allowed", code="bad-filter")
    query = _Query(
        model_id=model.id,
        run=None if listing.run is None else check_text(listing.run, "run"),
        field=parse_field(listing.order.removeprefix("-"), code="bad-order"),
        descending=listing.order.startswith("-"),
        conditions=tuple(map(_parse_filter, listing.filters)),
    )
    identity = repr((model.id, listing.run, listing.order, listing.filters))
    place = None
    if listing.cursor is not None:
        place = open_cursor(listing.cursor, identity, (query.field.python_type, type(None)), (int,))

    rows: list[Row[*tuple[Any, ...]]] = []
    if place is None or place[0] is not None:
        rows += s.select(query.ranked(place).limit(limit + 1))
        place = None
    if len(rows) <= limit and not query.field.never_null:
        rows += s.select(query.unranked(place).limit(limit + 1 - len(rows)))

    versions = [row.version for row in rows[:limit]]
    items = within_page(versions, lambda some: load_checkpoints(s, name, model.id, some))
    if len(items) == len(rows):
        return Page(items, None)
    last = rows[len(items) - 1]
    return Page(items, seal_cursor(identity, (last.rank, last.version)))


@dataclass(frozen=True, slots=True)
class _Query:
    """The SQL statements of a listing's two sections. Each selects only ``version`` and ``rank``, which indexes hold:
    where many checkpoints tie, sorting them must not read all rows.

    A place is the point to continue from: a rank (None in the second section) and a version.
    """

    model_id: int
    run: str | None
    field: Field
    descending: bool
    conditions: tuple[ColumnElement[bool], ...]

    def ranked(self, place: Sequence[Any] | None) -> Select[*tuple[Any, ...]]:
        """Checkpoints with a finite value of the order's field, after ``place``."""
        table = _TABLES[self.field.source]
        rank = table.c[self.field.name if table is checkpoints else "value"]
        version = table.c.version
        # The scope filters the ranking table, so that the database uses its index.
        statement = select(version, rank.label("rank")).where(*self._scope(table), rank.is_not(None))
        if table is not checkpoints:
            same = and_(table.c.model_id == checkpoints.c.model_id, version == checkpoints.c.version)
            statement = statement.join(checkpoints, same).where(table.c.name == self.field.name)
        if place is not None:
            value, after = place
            beyond = rank < value if self.descending else rank > value
            at_or_beyond = rank <= value if self.descending else rank >= value
            statement = statement.where(at_or_beyond, or_(beyond, version < after))
        statement = statement.order_by(rank.desc() if self.descending else rank)
        return statement if rank is version else statement.order_by(version.desc())

    def unranked(self, place: Sequence[Any] | None) -> Select[*tuple[Any, ...]]:
        """Checkpoints without a finite value of the order's field, after ``place``."""
        if self.field.source == "checkpoints":
            without: ColumnElement[bool] = checkpoints.c[self.field.name].is_(None)
        else:
            without = ~_has(self.field, lambda value: value.is_not(None))
        version = checkpoints.c.version
        statement = select(version, null().label("rank")).where(*self._scope(checkpoints), without)
        if place is not None:
            statement = statement.where(version < place[1])
        return statement.order_by(version.desc())

    def _scope(self, table: Table) -> list[ColumnElement[bool]]:
        scope = [table.c.model_id == self.model_id, table.c.version.is_not(None), *self.conditions]
        return scope if self.run is None else [*scope, table.c.run == self.run]


def _has(field: Field, condition: Callable[[ColumnElement[Any]], ColumnElement[bool]]) -> ColumnElement[bool]:
    """The SQL condition that the checkpoint has the metric or tag, with a value that fulfils ``condition``."""
    table = _TABLES[field.source].alias()  # the listing may be ordered by the same table
    return exists().where(
        table.c.model_id == checkpoints.c.model_id,
        table.c.version == checkpoints.c.version,
        table.c.name == field.name,
        condition(table.c.value),
    )


def _parse_filter(condition: Filter) -> ColumnElement[bool]:
    field = parse_field(condition.field, code="bad-filter")
    compare = _OPERATORS.get(condition.op)
    if compare is None:
        raise InvalidRequest(f"there is no operator {condition.op!r}: use {', '.join(_OPERATORS)}", code="bad-filter")
    value = parse_value(field, condition.value)
    if field.source == "checkpoints":
        return compare(checkpoints.c[field.name], value)
    return _has(field, lambda column: compare(column, value))
