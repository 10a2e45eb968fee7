"""Leases: what one process at a time does, among all that share a catalog.

A lease says who should work, and is no proof that nobody else does: clocks differ, and a process may sleep longer than
its lease. What is done under one has to be safe without it.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, or_, update

from .rows import to_microseconds
from .session import WriteSession
from .tables import leases


def take(w: WriteSession, name: str, holder: str, seconds: float) -> bool:
    """Give ``holder`` the lease ``name`` for ``seconds`` from now, unless it is another's. Again renews it."""
    now = datetime.now(UTC)
    until = to_microseconds(now + timedelta(seconds=seconds))
    w.insert_or_keep(leases, [{"name": name, "holder": holder, "lease_until": until}])
    is_free = or_(leases.c.holder == holder, leases.c.lease_until <= to_microseconds(now))
    taken = update(leases).where(leases.c.name == name, is_free).values(holder=holder, lease_until=until)
    return w.execute(taken).rowcount == 1


def give_back(w: WriteSession, name: str, holder: str | None = None) -> None:
    """End the lease of ``holder``; without one, whoever's it is."""
    given = delete(leases).where(leases.c.name == name)
    w.execute(given if holder is None else given.where(leases.c.holder == holder))
