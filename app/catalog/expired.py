"""What is kept for a limited time, let go of."""

from datetime import datetime

from sqlalchemy import delete

from .rows import to_microseconds
from .session import WriteSession
from .tables import idempotency_keys, plans


def drop_expired(w: WriteSession, now: datetime) -> int:
    """Drop the plans and idempotency keys that were kept until ``now``; tells how many."""
    return sum(
        w.execute(delete(table).where(table.c.kept_until < to_microseconds(now))).rowcount
        for table in (plans, idempotency_keys)
    )
