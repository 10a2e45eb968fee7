"""Leases for work that one process at a time should do, among all processes that share a catalog.

A lease does not prove that no other process works: clocks differ, and a process may sleep longer than its lease. Work
under a lease has to be safe without it.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, or_, select, update

from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import leases

BACKUP = "backup-"
"""How the names of the leases begin that backups hold."""


def take(w: WriteSession, name: str, holder: str, seconds: float) -> bool:
    """Give ``holder`` the lease ``name`` for ``seconds`` from now, or renew it; False if another holder has it."""
    now = datetime.now(UTC)
    until = to_microseconds(now + timedelta(seconds=seconds))
    w.insert_or_keep(leases, [{"name": name, "holder": holder, "lease_until": until}])
    is_free = or_(leases.c.holder == holder, leases.c.lease_until <= to_microseconds(now))
    taken = update(leases).where(leases.c.name == name, is_free).values(holder=holder, lease_until=until)
    return w.execute(taken).rowcount == 1


def give_back(w: WriteSession, name: str, holder: str | None = None) -> None:
    """End the lease of ``holder``. Without ``holder``, end it for any holder."""
    given = delete(leases).where(leases.c.name == name)
    w.execute(given if holder is None else given.where(leases.c.holder == holder))


def is_backup_running(s: ReadSession) -> bool:
    """Tell whether a backup holds a lease: no bytes may be deleted that its copy of the catalog refers to."""
    now = to_microseconds(datetime.now(UTC))
    running = select(leases.c.name).where(leases.c.name.startswith(BACKUP), leases.c.lease_until > now)
    return s.select(running.limit(1)).first() is not None
