"""Access tokens, and the keys that sign links."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, or_, select, update

from ..errors import Conflict, NotFound
from ..values.event import EventKind
from ..values.session import Session
from ..values.token import Scope, Token
from . import sessions
from .events import record
from .rows import from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import signing_keys, tokens

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
        raise Conflict(f"the name {token.name} is taken{revoked}: choose another name")
    good = w.select(select(func.count()).select_from(tokens).where(_is_good(token.created_at))).scalar_one()
    if good >= MOST_GOOD:
        raise Conflict(f"there are {good:,} valid tokens, which is the limit: revoke some, or wait until they expire")
    w.insert(
        tokens,
        [
            {
                "id": token.id,
                "name": token.name,
                "secret_hash": token.secret_hash,
                "scope": token.scope.value,
                "namespace": token.namespace,
                "created_at": to_microseconds(token.created_at),
                "expires_at": None if token.expires_at is None else to_microseconds(token.expires_at),
            }
        ],
    )
    detail = {"token": token.name, "scope": token.scope.value, "namespace": token.namespace}
    record(w, EventKind.TOKEN_MADE, detail=detail)


def revoke(w: WriteSession, name: str, now: datetime) -> Token:
    """Revoke a token. Raises NotFound. A token revoked earlier keeps its first revocation time."""
    change = update(tokens).where(tokens.c.name == name, tokens.c.revoked_at.is_(None))
    if w.execute(change.values(revoked_at=to_microseconds(now))).rowcount:
        record(w, EventKind.TOKEN_REVOKED, detail={"token": name})
    row = w.select(select(tokens).where(tokens.c.name == name)).first()
    if row is None:
        raise NotFound(f"there is no token called {name!r}")
    return _token(row)


def list_tokens(s: ReadSession) -> tuple[Token, ...]:
    """All tokens ever added, ordered by name."""
    return tuple(map(_token, s.select(select(tokens).order_by(tokens.c.name))))


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
        namespace=row.namespace,
        created_at=from_microseconds(row.created_at),
        expires_at=time(row.expires_at),
        revoked_at=time(row.revoked_at),
    )
