"""Access tokens: their scope, namespaces and expiry.

A token reads ``stateroom_ID_SECRET``: the prefix marks tokens for people and scanners, the id serves for look-up, and
the secret is 256 random bits that only its holder has. Only a plain SHA-256 of the secret is stored. Passwords need a
slow hash because they can be guessed; a secret cannot be guessed, and a fast hash lets every request be checked.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

PREFIX = "stateroom"
ID_BYTES = 8
SECRET_BYTES = 32

_TEXT = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})".encode())
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_ID = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}")
_NO_HASH = "0" * 64

MOST_NAMESPACES = 100
"""Most namespaces of one token. A token for more is one for all, or several."""


class Scope(StrEnum):
    """Operations that a token allows; each scope covers the scopes before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, other: "Scope") -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Token:
    """A stored token, valid only in ``namespaces`` unless that is None, and until ``expires_at`` if that is set.

    ``last_used_at`` is at most a minute older than its last use, None if it was never used.
    """

    id: str
    name: str
    secret_hash: str
    scope: Scope
    namespaces: frozenset[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def is_good(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def state(self, now: datetime) -> str:
        """Return ``good``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "good" if self.is_good(now) else "expired"


def limits(token: Token) -> dict[str, str | list[str] | None]:
    """Return the namespaces of a token for JSON: ``namespace`` for one, or for all (null); else ``namespaces``."""
    names = sorted(token.namespaces or ())
    return {"namespaces": names} if len(names) > 1 else {"namespace": names[0] if names else None}


def is_token_name(text: str) -> bool:
    """Tell whether ``text`` is 1 to 64 letters, digits, ``.``, ``_`` and ``-``, the first a letter or digit, and does
    not read like a token's id.
    """
    return _NAME.fullmatch(text) is not None and _ID.fullmatch(text) is None


def new_token(
    name: str, scope: Scope, namespaces: frozenset[str] | None, created_at: datetime, expires_at: datetime | None
) -> tuple[Token, str]:
    """Make a token and its text, which cannot be recovered later."""
    id_, secret = secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES)
    token = Token(id_, name, _hash(secret.encode()), scope, namespaces, created_at, expires_at)
    return token, f"{PREFIX}_{id_}_{secret}"


def parse_token(text: bytes) -> tuple[str, bytes] | None:
    """Return a token's id and secret, or None if ``text`` is not a token of this server."""
    match = _TEXT.fullmatch(text)
    return (match[1].decode(), match[2]) if match else None


def is_secret_of(secret: bytes, token: Token | None) -> bool:
    """Tell whether a secret is right; a nearly right secret, a wrong one and no token take equal time."""
    known = _NO_HASH if token is None else token.secret_hash
    return hmac.compare_digest(_hash(secret), known) and token is not None


def _hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
