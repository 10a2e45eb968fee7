"""Sessions of browsers. A row is all there is of one, so it is valid at every server, and ends when the row goes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, select

from ..values.session import Session
from .rows import from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import sessions

MOST_OF_A_TOKEN = 20
"""Most sessions of one token: a further one ends the oldest. Servers keep all sessions in memory."""


def add(w: WriteSession, session: Session) -> None:
    """Add a session, end the oldest ones of its token if there are too many, and delete all that have expired."""
    now = to_microseconds(session.created_at)
    w.execute(delete(sessions).where(sessions.c.expires_at <= now))
    older = (
        select(sessions.c.id)
        .where(sessions.c.maker == session.maker)
        .order_by(sessions.c.created_at.desc(), sessions.c.id)
        .offset(MOST_OF_A_TOKEN - 1)
    )
    if too_many := list(w.select(older).scalars()):
        w.execute(delete(sessions).where(sessions.c.id.in_(too_many)))
    row = {"id": session.id, "maker": session.maker, "seal": session.seal, "created_at": now}
    w.insert(sessions, [{**row, "expires_at": to_microseconds(session.expires_at)}])


def end(w: WriteSession, id_: str) -> None:
    """End a session. One that is gone already stays so."""
    w.execute(delete(sessions).where(sessions.c.id == id_))


def unexpired(s: ReadSession, now: datetime) -> Mapping[str, Row[*tuple[Any, ...]]]:
    """All sessions that have not expired, as rows by id; ``session_of`` converts one."""
    return {row[0]: row for row in s.select(select(sessions).where(sessions.c.expires_at > to_microseconds(now)))}


def session_of(row: Row[*tuple[Any, ...]]) -> Session:
    return Session(row.id, row.maker, row.seal, from_microseconds(row.created_at), from_microseconds(row.expires_at))
