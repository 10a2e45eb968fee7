"""Reading many rows beside writers: a page at a time, each in a short transaction."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Row, Select, tuple_

if TYPE_CHECKING:  # the catalog reads its events and deliveries so
    from .catalog import Catalog

ROWS = 2_000
"""Rows of a page."""


def by_page(
    catalog: "Catalog", found: Select[*tuple[Any, ...]], *place: Column[Any]
) -> Iterator[Row[*tuple[Any, ...]]]:
    """Yield the rows of ``found`` in the order of ``place``: its first columns, which no two rows share.

    No transaction is open between two pages. Rows added or removed meanwhile may be included or not.
    """
    found = found.order_by(*place).limit(ROWS)
    page = found
    while True:
        with catalog.read() as s:  # the search may take long if there are few
            rows = s.select(page).all()
        if not rows:
            return
        yield from rows
        last = tuple(rows[-1])[: len(place)]
        page = found.where(place[0] > last[0] if len(place) == 1 else tuple_(*place) > last)
