"""Listing a model's checkpoints: order, filters, keyset pages.

The order is total: by a field, then by newest version. Checkpoints without a finite value of the field come last,
newest first. So a listing has two sections, each a plain index scan. A page needs at most one statement for each.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, and_, exists, func, null, or_, select

from ..errors import InvalidRequest
from ..values.checkpoint import Checkpoint, ModelName
from .fields import Field, parse_field, parse_value
from .lists import each_integer, is_among
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

FEW = 1_000
"""Most checkpoints that fulfil a filter for it to be looked up before the listing is read."""

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
    filters = [_parse_filter(each) for each in listing.filters]
    query = _Query(
        model_id=model.id,
        run=None if listing.run is None else check_text(listing.run, "run"),
        field=parse_field(listing.order.removeprefix("-"), code="bad-order"),
        descending=listing.order.startswith("-"),
        conditions=tuple(each.holds() for each in filters),
        few=_first_few(s, model.id, filters),
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
    few: list[int] | None
    """Versions, if only these can fulfil the conditions: they are sorted, and no index is read in its order."""

    def ranked(self, place: Sequence[Any] | None) -> Select[*tuple[Any, ...]]:
        """Checkpoints with a finite value of the order's field, after ``place``."""
        table = _TABLES[self.field.source]
        rank = table.c[self.field.name if table is checkpoints else "value"]
        version = table.c.version
        # The scope filters the ranking table, so that the database uses its index.
        statement = self._select(version, rank.label("rank")).where(*self._scope(table))
        if rank is not version:
            statement = statement.where(self._unindexed(rank).is_not(None))
        if table is not checkpoints:
            same = and_(table.c.model_id == checkpoints.c.model_id, version == checkpoints.c.version)
            statement = statement.join(checkpoints, same).where(table.c.name == self.field.name)
        if place is not None:
            value, after = place
            beyond = rank < value if self.descending else rank > value
            at_or_beyond = rank <= value if self.descending else rank >= value
            statement = statement.where(at_or_beyond, or_(beyond, version < after))
        by = self._unindexed(rank)
        statement = statement.order_by(by.desc() if self.descending else by)
        return statement if rank is version else statement.order_by(self._unindexed(version).desc())

    def unranked(self, place: Sequence[Any] | None) -> Select[*tuple[Any, ...]]:
        """Checkpoints without a finite value of the order's field, after ``place``."""
        if self.field.source == "checkpoints":
            without: ColumnElement[bool] = self._unindexed(checkpoints.c[self.field.name]).is_(None)
        else:
            without = ~_has(self.field, lambda value: value.is_not(None))
        version = checkpoints.c.version
        statement = self._select(version, null().label("rank")).where(*self._scope(checkpoints), without)
        if place is not None:
            statement = statement.where(version < place[1])
        return statement.order_by(self._unindexed(version).desc())

    def _select(self, *columns: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
        """Select ``columns``; where few rows are wanted, also one that no index has: SQLite would rather read a whole
        index that holds all columns.
        """
        return select(*columns) if self.few is None else select(*columns, checkpoints.c.manifest)

    def _unindexed(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """The column; where few rows are wanted, as an expression for which no database would take an index."""
        return column if self.few is None else func.coalesce(column, column)

    def _scope(self, table: Table) -> list[ColumnElement[bool]]:
        scope = [table.c.model_id == self.model_id, *self.conditions]
        scope.append(
            table.c.version.is_not(None) if self.few is None else is_among(table.c.version, each_integer(self.few))
        )
        return scope if self.run is None else [*scope, self._unindexed(table.c.run) == self.run]


def _has(field: Field, condition: Callable[[ColumnElement[Any]], ColumnElement[bool]]) -> ColumnElement[bool]:
    """The SQL condition that the checkpoint has the metric or tag, with a value that fulfils ``condition``."""
    table = _TABLES[field.source].alias()  # the listing may be ordered by the same table
    return exists().where(
        table.c.model_id == checkpoints.c.model_id,
        table.c.version == checkpoints.c.version,
        table.c.name == field.name,
        condition(table.c.value),
    )


@dataclass(frozen=True, slots=True)
class _Condition:
    """A parsed filter."""

    field: Field
    compare: _Compare
    value: Any

    def holds(self) -> ColumnElement[bool]:
        """The SQL condition for a row of checkpoints."""
        if self.field.source == "checkpoints":
            return self.compare(checkpoints.c[self.field.name], self.value)
        return _has(self.field, lambda column: self.compare(column, self.value))

    def few(self, s: ReadSession, model_id: int) -> list[int] | None:
        """The versions that fulfil the condition, None for more than FEW. Every field has an index."""
        table = _TABLES[self.field.source]
        of_model = (table.c.model_id == model_id, table.c.version.is_not(None))
        if table is checkpoints:
            theirs = [self.compare(table.c[self.field.name], self.value)]
        else:
            theirs = [table.c.name == self.field.name, self.compare(table.c.value, self.value)]
        found = list(s.select(select(table.c.version).where(*of_model, *theirs).limit(FEW + 1)).scalars())
        return found if len(found) <= FEW else None


def _first_few(s: ReadSession, model_id: int, filters: Iterable[_Condition]) -> list[int] | None:
    """The versions that fulfil the first of ``filters`` that few do. A listing in order soon finds what many fulfil,
    but would read all checkpoints for what few do. Each filter is a statement, until one is fulfilled by few.
    """
    return next((found for each in filters if (found := each.few(s, model_id)) is not None), None)


def _parse_filter(condition: Filter) -> _Condition:
    field = parse_field(condition.field, code="bad-filter")
    compare = _OPERATORS.get(condition.op)
    if compare is None:
        raise InvalidRequest(f"there is no operator {condition.op!r}: use {', '.join(_OPERATORS)}", code="bad-filter")
    return _Condition(field, compare, parse_value(field, condition.value))
