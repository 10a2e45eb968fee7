"""Byte ranges of a response body, read straight into memory."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from .._errors import ServerError
from .._printable import printable
from .raw import connect, is_proxied, read_answer, shut_down
from .retry import RetryPolicy
from .session import Http


class Range(Protocol):
    """A byte range of a response body, read as it arrives."""

    def readinto(self, view: memoryview) -> int:
        """Read up to ``len(view)`` bytes and return their number; 0 at the end. Raises one of BROKEN."""


class Connection:
    """One connection to a server for one range after another, opened when it is first needed.

    ``open`` is called by one thread; ``close`` may be called by another, and ends a read that waits.
    """

    def __init__(self, server: Http) -> None:
        self._server = server
        self._wire: http.client.HTTPConnection | None = None
        self._response: httpx.Response | None = None
        self._has_more = False  # the answer is longer than the range: close instead of reading the rest

    def open(self, path: str, start: int, end: int, etag: str, verifies: bool, retry: RetryPolicy) -> Range | None:
        """Request bytes ``[start, end)`` of the body with this ETag; ``verifies`` tells that the caller checks whole
        blocks.

        Returns None if the server refused for now, after the wait that it asked for. Raises the error for the answer,
        and one of BROKEN.
        """
        fields = {"Range": f"bytes={start}-{end - 1}", "If-Range": f'"{etag}"'}
        if verifies:
            fields["Stateroom-Verifies"] = "client"
        if self._through_httpx:
            if self._response is not None:
                self._response.close()
            self._response = self._server.open(path, (), fields, retry)
            pieces = _Pieces(self._response.iter_raw())
            return _from(pieces, self._response.status_code, self._response.headers, start, etag)
        if self._has_more:
            self.close()
        wire = self._wire = self._wire or connect(self._server)
        wire.request("GET", urlsplit(self._server.url).path + path, headers={**self._server.headers, **fields})
        answer = wire.getresponse()
        if answer.status >= 300:
            self._server.refused(read_answer(self._server, "GET", path, answer), retry, safe=True)
            return None
        self._has_more = answer.status != 206
        return _from(answer, answer.status, dict(answer.getheaders()), start, etag)

    @cached_property
    def _through_httpx(self) -> bool:
        return is_proxied(self._server.url)

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            shut_down(wire)
            wire.close()
        if self._response is not None:
            self._response.close()


class _Pieces:
    """A response body of httpx."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readinto(self, view: memoryview) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _from(body: Range, status: int, headers: Mapping[str, str], start: int, etag: str) -> Range:
    """Return the body from byte ``start`` on; a proxy without range support sends it from byte 0."""
    fields = httpx.Headers(headers)
    if fields.get("ETag") != f'"{etag}"':
        raise ServerError("the file changed after its index was sent; retry")
    said = fields.get("Content-Range", "all of it")
    match = re.match(r"bytes (\d+)-", said)
    if status == 206 and (match is None or int(match[1]) != start):
        raise ServerError(f"bytes from {start} on were requested, but the server sent {printable(said)}")
    spare = memoryview(bytearray(min(start, 1024 * 1024)))
    left = 0 if status == 206 else start
    while left:
        count = body.readinto(spare[:left])
        if not count:
            raise ConnectionResetError(f"the body ended before byte {start}")
        left -= count
    return body
