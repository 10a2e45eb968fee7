"""Sessions: what a browser shows in place of a token, so that the token isn't kept there.

A session is 256 random bits, of which only a plain SHA-256 is stored, as of a token's secret.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

LIFETIME = timedelta(days=7)

_BYTES = 32
_TEXT = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """A session of the token ``maker``. ``seal`` is the hash of that token's secret: another token of the same id, as
    ``STATEROOM_SERVER_TOKEN`` may become, does not inherit it.
    """

    id: str
    maker: str
    seal: str
    created_at: datetime
    expires_at: datetime


def new_session(maker: str, seal: str, now: datetime) -> tuple[Session, str]:
    """Make a session and its text, which cannot be recovered later."""
    text = secrets.token_hex(_BYTES)
    return Session(_hash(text), maker, seal, now, now + LIFETIME), text


def session_id(text: str) -> str | None:
    """Return the id of a session's text, None if ``text`` is not of a session's form."""
    return _hash(text) if _TEXT.fullmatch(text) else None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
