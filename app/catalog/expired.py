"""Deletion of expired rows."""

from datetime import datetime

from sqlalchemy import delete

from .rows import to_microseconds
from .session import WriteSession
from .tables import idempotency_keys, plans


def drop_expired(w: WriteSession, now: datetime) -> int:
    """Delete the plans and idempotency keys that expired before ``now``, and return their number."""
    return sum(
        w.execute(delete(table).where(table.c.kept_until < to_microseconds(now))).rowcount
        for table in (plans, idempotency_keys)
    )
