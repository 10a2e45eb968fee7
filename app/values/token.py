"""Tokens: who may do what, where, and for how long.

A token reads ``stateroom_ID_SECRET``: the prefix so that people and scanners know one when they see it, the id to look
it up by, and 256 random bits that only its holder has. A plain SHA-256 of those is kept. What makes passwords need a
slow hash, that they can be guessed, is not so here; and a fast one lets every request be judged.
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
_NO_HASH = "0" * 64


class Scope(StrEnum):
    """What a token is good for; each covers those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, other: "Scope") -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept, good in ``namespace`` alone if it has one, and until ``expires_at`` if it has that."""

    id: str
    name: str
    secret_hash: str
    scope: Scope
    namespace: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None = None

    def is_good(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def is_token_name(text: str) -> bool:
    """1 to 64 letters, digits, ``.``, ``_`` and ``-``, of which the first is a letter or a digit."""
    return _NAME.fullmatch(text) is not None


def new_token(
    name: str, scope: Scope, namespace: str | None, created_at: datetime, expires_at: datetime | None
) -> tuple[Token, str]:
    """A token that nobody has yet, and its text, which cannot be had again."""
    id_, secret = secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES)
    token = Token(id_, name, _hash(secret.encode()), scope, namespace, created_at, expires_at)
    return token, f"{PREFIX}_{id_}_{secret}"


def parse_token(text: bytes) -> tuple[str, bytes] | None:
    """The id and the secret in it; None for what is no token of ours, whatever it is."""
    match = _TEXT.fullmatch(text)
    return (match[1].decode(), match[2]) if match else None


def is_secret_of(secret: bytes, token: Token | None) -> bool:
    """Takes as long for a nearly right one as for a wrong one, and as long where there is no token."""
    known = _NO_HASH if token is None else token.secret_hash
    return hmac.compare_digest(_hash(secret), known) and token is not None


def _hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
