"""Warm-start plans, stored for a while so that a short URL can stand for a long list of keys."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, update

from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import plans

KEPT = timedelta(days=2)
"""Lifetime of a plan. The API promises at least a day."""


def keep(w: WriteSession, namespace: str, digest: str, document: str, at_least: timedelta = KEPT) -> None:
    """Store ``document`` for at least ``at_least`` from now, and delete expired plans of
    the namespace.
    """
    now = datetime.now(UTC)
    w.execute(delete(plans).where(plans.c.namespace == namespace, plans.c.kept_until < to_microseconds(now)))
    until = to_microseconds(now + at_least)
    w.insert_or_keep(plans, [{"namespace": namespace, "digest": digest, "document": document, "kept_until": until}])
    this = (plans.c.namespace == namespace, plans.c.digest == digest, plans.c.kept_until < until)
    w.execute(update(plans).where(*this).values(kept_until=until))


def find(s: ReadSession, namespace: str, digest: str) -> str | None:
    """The document stored under ``digest``, or None. ``digest`` may be any text."""
    if "\0" in digest:  # PostgreSQL's text type cannot hold NUL
        return None
    found = s.select(select(plans.c.document).where(plans.c.namespace == namespace, plans.c.digest == digest))
    document: str | None = found.scalar()
    return document
