"""Access tokens, and the keys that sign links."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, func, or_, select, update

from ..errors import Conflict, NotFound
from ..values.event import Detail, EventKind
from ..values.session import Session
from ..values.token import Scope, Token, limits
from . import sessions
from .events import record
from .page import Page, check_limit, open_cursor, seal_cursor
from .rows import from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import signing_keys, tokens

USES_APART = timedelta(seconds=60)
"""Least time between two writes of the last use of one token, whichever servers write them."""

_USED = (
    update(tokens)
    .where(
        tokens.c.id == bindparam("token"),
        or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at <= bindparam("long_ago")),
    )
    .values(last_used_at=bindparam("at"))
)

MOST_GOOD = 10_000
"""Most valid tokens at once, because every server keeps all of them in memory and re-reads them often."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The valid tokens, the link keys and the sessions, each by id. ``guarded`` tells whether there ever was a token,
    valid or not.

    Each token stays a database row until it is needed, because requests use few of thousands of tokens.
    """

    guarded: bool = True
    rows: Mapping[str, Row[*tuple[Any, ...]]] = field(default_factory=dict)
    keys: Mapping[int, bytes] = field(default_factory=dict)
    sessions: Mapping[str, Row[*tuple[Any, ...]]] = field(default_factory=dict)

    def token(self, id_: str) -> Token | None:
        row = self.rows.get(id_)
        return None if row is None else _token(row)

    def session(self, id_: str) -> Session | None:
        row = self.sessions.get(id_)
        return None if row is None else sessions.session_of(row)


def add(w: WriteSession, token: Token) -> None:
    """Add a token. Raises Conflict if its name is taken (also by a revoked token), or if there are too many tokens."""
    taken = w.select(select(tokens).where(tokens.c.name == token.name)).first()
    if taken is not None:
        revoked = " by a revoked token" if taken.revoked_at is not None else ""
        raise Conflict(f"the name {token.name} is taken{revoked}: choose another name", code="token-name-taken")
    good = w.select(select(func.count()).select_from(tokens).where(_is_good(token.created_at))).scalar_one()
    if good >= MOST_GOOD:
        too_many = f"there are {good:,} valid tokens, which is the limit: revoke some, or wait until they expire"
        raise Conflict(too_many, code="too-many-tokens")
    namespaces = None if token.namespaces is None else sorted(token.namespaces)
    w.insert(
        tokens,
        [
            {
                "id": token.id,
                "name": token.name,
                "secret_hash": token.secret_hash,
                "scope": token.scope.value,
                "namespaces": namespaces,
                "created_at": to_microseconds(token.created_at),
                "expires_at": None if token.expires_at is None else to_microseconds(token.expires_at),
            }
        ],
    )
    detail: Detail = {"token": token.name, "scope": token.scope.value, **limits(token)}
    record(w, EventKind.TOKEN_MADE, detail=detail)


def revoke(w: WriteSession, name_or_id: str, now: datetime) -> Token:
    """Revoke a token. Raises NotFound. A token revoked earlier keeps its first revocation time."""
    by_name = select(tokens).where(tokens.c.name == name_or_id)
    row = w.select(by_name).first() or w.select(select(tokens).where(tokens.c.id == name_or_id)).first()
    if row is None:
        raise NotFound(f"there is no token called {name_or_id[:100]!r}", code="token-not-found")
    if row.revoked_at is None:
        w.execute(update(tokens).where(tokens.c.id == row.id).values(revoked_at=to_microseconds(now)))
        record(w, EventKind.TOKEN_REVOKED, detail={"token": row.name})
    return _token(w.select(select(tokens).where(tokens.c.id == row.id)).one())


def list_tokens(s: ReadSession) -> tuple[Token, ...]:
    """All tokens ever added, ordered by name."""
    return tuple(map(_token, s.select(select(tokens).order_by(tokens.c.name))))


def token_page(s: ReadSession, *, limit: int = 50, cursor: str | None = None) -> Page[Token]:
    """One page of ``list_tokens``. Raises InvalidRequest, codes ``bad-limit`` and ``bad-cursor``."""
    statement = select(tokens).order_by(tokens.c.name).limit(check_limit(limit) + 1)
    if cursor is not None:
        (after,) = open_cursor(cursor, "tokens", (str,))
        statement = statement.where(tokens.c.name > after)
    rows = s.select(statement).all()
    items = tuple(map(_token, rows[:limit]))
    return Page(items, seal_cursor("tokens", [items[-1].name]) if len(rows) > limit else None)


def note_uses(w: WriteSession, uses: Mapping[str, datetime]) -> None:
    """Store when tokens, given by id, were last used, except where that was stored within the last USES_APART.

    Takes no lock but those of the rows, in the order of their ids, so that two servers never wait in a circle. Readers
    wait for none of them.
    """
    rows = [
        {"token": id_, "at": to_microseconds(at), "long_ago": to_microseconds(at - USES_APART)}
        for id_, at in sorted(uses.items())
    ]
    w.execute_many(_USED, rows)


def any_ever(s: ReadSession) -> bool:
    return s.select(select(tokens.c.id).limit(1)).first() is not None


def credentials(s: ReadSession, now: datetime) -> Credentials:
    """Read the credentials, always in four statements."""
    return Credentials(
        guarded=any_ever(s),
        rows={row[0]: row for row in s.select(select(tokens).where(_is_good(now)))},  # the first column is the id
        keys={row.id: bytes.fromhex(row.key) for row in s.select(select(signing_keys))},
        sessions=sessions.unexpired(s, now),
    )


def _is_good(now: datetime) -> ColumnElement[bool]:
    expires = tokens.c.expires_at
    return tokens.c.revoked_at.is_(None) & or_(expires.is_(None), expires > to_microseconds(now))


def _token(row: Row[*tuple[Any, ...]]) -> Token:
    def time(count: int | None) -> datetime | None:
        return None if count is None else from_microseconds(count)

    return Token(
        id=row.id,
        name=row.name,
        secret_hash=row.secret_hash,
        scope=Scope(row.scope),
        namespaces=None if row.namespaces is None else frozenset(row.namespaces),
        created_at=from_microseconds(row.created_at),
        expires_at=time(row.expires_at),
        revoked_at=time(row.revoked_at),
        last_used_at=time(row.last_used_at),
    )
