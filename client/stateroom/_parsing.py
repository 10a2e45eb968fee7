"""Values in the server's JSON."""

from __future__ import annotations

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
