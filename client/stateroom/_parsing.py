"""Values in the server's JSON."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import Any, TypeVar

Kind = TypeVar("Kind")


def kind_of(value: Any, kind: type[Kind]) -> Kind:
    """Return ``value``. Raises TypeError if it is of another kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} where {kind.__name__} is expected")
    return value


def time_of(text: str) -> datetime:
    """Parse a time of the server."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.11 is the first to read Z


def sha256_in(repr_digest: str) -> str:
    """Return the SHA-256 in a Repr-Digest field, in hex. Raises ValueError if there is none."""
    match = re.search(r"(?:^|[ ,])sha-256=:([A-Za-z0-9+/]{43}=):", repr_digest)
    if match is None:
        raise ValueError(f"no SHA-256 in {repr_digest!r}")
    return base64.b64decode(match[1]).hex()
