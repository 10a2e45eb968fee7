"""Lists of values as one parameter of a statement, however long they are."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, BindParameter, ColumnElement, Integer, Select, Text, cast, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from ..values.json_text import joined
from ..values.slices import in_order, slices


class _json_elements(GenericFunction[Any]):  # noqa: N801 - named like the SQL function it stands for
    inherit_cache = True


@compiles(_json_elements, "sqlite")
def _json_each(element: _json_elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each{compiler.process(element.clause_expr, **options)}"


@compiles(_json_elements, "postgresql")
def _json_array_elements(element: _json_elements, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clause_expr, **options)} AS json))"


def as_texts(items: Iterable[str]) -> str:
    """The parameter of ``each_text``. Sorted, because index look-ups are fastest in order."""
    return joined(map(json.dumps, slices(in_order(items))))


def as_integers(items: Iterable[int]) -> str:
    """The parameter of ``each_integer``."""
    return joined(map(json.dumps, slices(list(items))))


def each_text(items: Iterable[str] | BindParameter[str]) -> Select[Any]:
    """A column ``value`` of texts, passed as one parameter. A ``bindparam`` gets its value later, from ``as_texts``."""
    elements = _json_elements(items if isinstance(items, BindParameter) else as_texts(items)).table_valued("value")
    return select(cast(elements.c.value, Text).label("value"))


def each_integer(items: Iterable[int] | BindParameter[str]) -> Select[Any]:
    """A column ``value`` of integers, passed as one parameter. A ``bindparam`` gets its value later, from
    ``as_integers``.
    """
    listed = items if isinstance(items, BindParameter) else as_integers(items)
    elements = _json_elements(listed).table_valued("value")
    return select(cast(elements.c.value, BigInteger).label("value"))


class _is_among(GenericFunction[Any]):  # noqa: N801 - as above
    inherit_cache = True
    type = Integer()  # for a Boolean, SQLAlchemy would ask SQLite whether it equals 1, and no index would serve that


@compiles(_is_among, "sqlite")
def _in_column(element: _is_among, compiler: SQLCompiler, **options: Any) -> str:
    value, column = (compiler.process(each, **options) for each in element.clauses)
    return f"{value} IN {column}"


@compiles(_is_among, "postgresql")
def _any_of_array(element: _is_among, compiler: SQLCompiler, **options: Any) -> str:
    value, column = (compiler.process(each, **options) for each in element.clauses)
    return f"{value} = ANY (ARRAY{column})"


def is_among(value: ColumnElement[Any], column: Select[Any]) -> ColumnElement[bool]:
    """The condition that ``value`` is in a column of ``each_text`` or ``each_integer``.

    Not ``IN`` on PostgreSQL: it plans prepared statements by the average model or namespace, and would read all rows of
    a large one, to join them with the column. The elements of an array are looked up in an index, one after another.
    """
    return _is_among(value, column.scalar_subquery())
