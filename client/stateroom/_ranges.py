"""Ranges of a body, read straight into memory."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from ._errors import ServerError
from ._http import Http, Patience
from ._wire import connect, is_proxied, read_answer


class Range(Protocol):
    """The bytes of a range, as they come."""

    def readinto(self, view: memoryview) -> int:
        """Up to ``len(view)`` bytes; 0 at the end. Raises one of BROKEN."""


class Connection:
    """One connection to a server, for one range after another; made when it is first needed.

    ``open`` is for one thread, ``close`` may come from another, and ends a read that waits.
    """

    def __init__(self, server: Http) -> None:
        self._server = server
        self._wire: http.client.HTTPConnection | None = None
        self._through_httpx = is_proxied(server.url)
        self._response: httpx.Response | None = None

    def open(self, path: str, start: int, end: int, headers: Mapping[str, str], patience: Patience) -> Range | None:
        """Bytes ``[start, end)`` of a body; None where the server said that it will not now, and was waited for.

        Raises what the answer means, and one of BROKEN.
        """
        fields = {**headers, "Range": f"bytes={start}-{end - 1}"}
        if self._through_httpx:
            self._response = self._server.open(path, (), fields, patience)
            _check(self._response.status_code, self._response.headers.get("Content-Range"), start, path)
            return _Pieces(self._response.iter_raw())
        wire = self._wire = self._wire or connect(self._server)
        wire.request("GET", urlsplit(self._server.url).path + path, headers={**self._server.headers, **fields})
        answer = wire.getresponse()
        if answer.status >= 300:
            self._server.refused(read_answer(self._server, "GET", path, answer), patience, safe=True)
            return None
        _check(answer.status, answer.getheader("Content-Range"), start, path)
        return answer

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            if wire.sock is not None:
                with suppress(OSError):
                    wire.sock.shutdown(socket.SHUT_RDWR)
            wire.close()
        if self._response is not None:
            self._response.close()


class _Pieces:
    """A body of httpx."""

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


def _check(status: int, said: str | None, start: int, path: str) -> None:
    match = re.match(r"bytes (\d+)-", said or "")
    if status != 206:
        raise ServerError(f"{path} is not the file any more that its index describes; ask again")
    if match is None or int(match[1]) != start:
        raise ServerError(f"{path} was asked for from byte {start} on, but the server sent {said}")
