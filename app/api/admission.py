"""Admission of uploads: how many at once, how many bytes each, and their Idempotency-Key."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Header, Request

from ..concurrency.cancellation import current
from ..concurrency.fair_admission import FairPlaces
from ..errors import InvalidRequest, TooLarge, TooManyUploads

KEY_LENGTH = 255

_KEY = re.compile(rf"[!-~]{{1,{KEY_LENGTH}}}", re.ASCII)


class Admission:
    """At most ``at_once`` uploads at a time in this process, each of at most ``max_bytes`` (None: of any size).

    Places are given out as in FairPlaces, but without waiting: one caller alone may hold half of them.
    """

    def __init__(self, at_once: int, max_bytes: int | None) -> None:
        self.max_bytes = max_bytes
        self._places = FairPlaces(at_once)

    @property
    def active(self) -> int:
        return self._places.taken

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place for an upload, on the account of the current work. Raises TooManyUploads."""
        place = self._places.take(current().owner)
        if place is None:
            raise TooManyUploads(
                f"{self.active} of at most {self._places.capacity} uploads are in progress, and the places left are "
                "reserved for other clients; retry later"
            )
        try:
            yield
        finally:
            place.leave()


def declared_size(request: Request, limit: int | None) -> int | None:
    """Return the body size that the request declares, in bytes. Raises TooLarge before any byte is read."""
    length = request.headers.get("Content-Length")
    if length is None:
        return None
    check_size(int(length), limit)
    return int(length)


def check_size(size: int, limit: int | None) -> None:
    """Raise TooLarge if ``size`` exceeds ``limit``."""
    if limit is not None and size > limit:
        raise TooLarge(f"the body is larger than {limit:,} bytes, the most that this server accepts")


async def idempotency_key(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="A retry with the same key gets the first response, and stores nothing. Kept for a day.",
            json_schema_extra={"minLength": 1, "maxLength": KEY_LENGTH, "pattern": "^[!-~]+$"},
        ),
    ] = None,
) -> str | None:
    """Return the request's key. Raises InvalidRequest ``bad-idempotency-key``."""
    given = request.headers.getlist("Idempotency-Key")
    if not given:
        return None
    if len(given) > 1 or _KEY.fullmatch(given[0]) is None:
        raise InvalidRequest(
            f"Idempotency-Key must be given once, and be 1 to {KEY_LENGTH} visible ASCII characters",
            code="bad-idempotency-key",
        )
    return given[0]


IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
