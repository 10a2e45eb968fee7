"""Pages and their cursors.

A cursor is the place of a page's last item in the listing's order, as URL-safe text. It belongs to one listing
(model, order, filters). Its checksum covers the place and the listing, so that a damaged cursor, or a cursor of another
listing, is an error and not a wrong page. A cursor holds no secret and grants no access.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from ..errors import InvalidRequest
from .rows import MAX_INTEGER

T = TypeVar("T")

MAX_LIMIT = 1000

_CHECK_SIZE = 8


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing. ``next`` is the cursor of the next page, None on the last page."""

    items: tuple[T, ...]
    next: str | None


def check_limit(limit: int) -> int:
    """Return ``limit``. Raises InvalidRequest, code ``bad-limit``."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit must be between 1 and {MAX_LIMIT}, not {limit}", code="bad-limit")
    return limit


def seal_cursor(listing: str, place: Sequence[Any]) -> str:
    """Make a cursor. ``place`` holds only values that JSON keeps exactly: str, int, finite float, bool, None."""
    data = json.dumps(place, separators=(",", ":")).encode()
    return _text(_check(listing, data) + data)


def open_cursor(cursor: str, listing: str, *kinds: tuple[type, ...]) -> list[Any]:
    """Return the place passed to ``seal_cursor``: one value for each of ``kinds``.

    Raises InvalidRequest, code ``bad-cursor``.
    """
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True)
        check, data = raw[:_CHECK_SIZE], raw[_CHECK_SIZE:]
        if check != _check(listing, data) or _text(raw) != cursor:
            _refuse()
        place = json.loads(data)
    except (ValueError, RecursionError):  # not ASCII, not base64, not JSON
        _refuse()
    if not isinstance(place, list) or len(place) != len(kinds):
        _refuse()
    for value, kind in zip(place, kinds, strict=True):
        if type(value) not in kind or (type(value) is int and abs(value) > MAX_INTEGER):
            _refuse()
    return place


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _check(listing: str, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECK_SIZE, key=hashlib.sha256(listing.encode()).digest()).digest()


def _refuse() -> NoReturn:
    raise InvalidRequest(
        "the cursor is invalid, or of another listing (model, run, order or filters): start without a cursor",
        code="bad-cursor",
    )
