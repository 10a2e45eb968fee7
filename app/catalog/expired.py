"""Deletion of expired rows."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Table, delete, select

from .catalog import Catalog
from .pace import Pace
from .rows import to_microseconds
from .tables import idempotency_keys, loose_files, plans

_AT_ONCE = 2_000


def drop_expired(catalog: Catalog, now: datetime, go_on: Callable[[], None]) -> int:
    """Delete the plans, idempotency keys and loose files that expired before ``now``, and return their number."""
    return sum(_drop(catalog, table, now, go_on) for table in (plans, idempotency_keys, loose_files))


def _drop(catalog: Catalog, table: Table, now: datetime, go_on: Callable[[], None]) -> int:
    """Work through the times of expiry, because several rows may have one."""
    is_over = table.c.kept_until < to_microseconds(now)
    found = select(table.c.kept_until).where(is_over).order_by(table.c.kept_until).limit(_AT_ONCE)
    count, pace = 0, Pace(200, _AT_ONCE)
    while True:
        with catalog.read() as s:
            times: list[Any] = list(s.select(found).scalars())
        if not times:
            return count
        for some in pace.slices(times):
            go_on()
            with catalog.turn(pace=pace) as w:
                upto = table.c.kept_until.between(some[0], some[-1])
                count += w.execute(delete(table).where(upto, is_over)).rowcount
