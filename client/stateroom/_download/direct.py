"""Reading storages from the server's object store itself, by URLs that the server has signed.

Whatever goes wrong there, the bytes then come from the server. They are verified by the same digests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from .._http.ranges import Range
from .._log import LOG
from .fetch_plan import Piece
from .layout import Stored

_TIMEOUT = httpx.Timeout(30.0, connect=3.0)


class Direct:
    """Connections to the object store, for several threads. Usable again after ``close``."""

    def __init__(self) -> None:
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self._given_up: set[int] = set()
        """Start offsets of the storages that the server has to send."""
        self._is_out_of_reach = False

    @contextmanager
    def opened(self, piece: Piece, position: int, end: int) -> Iterator[Range | None]:
        """Open bytes ``[position, end)`` of the file, which begin in ``piece`` and are one storage's; None if they have
        to come from the server.
        """
        stored = piece.stored
        if stored is None or not stored.at or piece.held is not None or piece.damaged:
            yield None
            return
        if self._is_out_of_reach or stored.start in self._given_up:
            yield None
            return
        body = _Parts(self._connected(), stored, position - stored.start, end - stored.start)
        try:
            if not body.begin():
                self._is_out_of_reach |= body.is_out_of_reach
                self._give_up(stored, "it is out of reach" if body.is_out_of_reach else "it was refused")
                yield None
                return
            try:
                yield body
            except (httpx.HTTPError, OSError) as error:
                self._give_up(stored, type(error).__name__)
                raise ConnectionResetError("the object store broke off") from error
        finally:
            body.close()

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=_TIMEOUT, headers={"Accept-Encoding": "identity"})
            return self._client

    def _give_up(self, stored: Stored, why: str) -> None:
        LOG.info("Bytes %d to %d come from the server, not from its store: %s.", stored.start, stored.end, why)
        self._given_up.add(stored.start)


class _Parts:
    """Bytes ``[start, end)`` of a storage, from one object after another."""

    def __init__(self, client: httpx.Client, stored: Stored, start: int, end: int) -> None:
        self._client = client
        self._left = list(_parts(stored, start, end))
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._chunk = memoryview(b"")
        self._count = 0
        self.is_out_of_reach = False
        """True if the object store could not be connected to."""

    def begin(self) -> bool:
        """Open the next object; False if the store refuses it."""
        url, start, end = self._left.pop(0)
        self.close()
        try:
            request = self._client.build_request("GET", url, headers={"Range": f"bytes={start}-{end - 1}"})
            self._response = self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.is_out_of_reach = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
            return False
        self._chunks, self._count = self._response.iter_raw(), end - start
        return self._response.status_code == 206

    def readinto(self, view: memoryview) -> int:
        while not self._chunk:
            if not self._count:
                if not self._left:
                    return 0
                if not self.begin():
                    raise ConnectionResetError("the object store refused an object")
            chunk = next(self._chunks, None)
            if chunk is None:
                raise ConnectionResetError("the object ended early")
            self._chunk = memoryview(chunk)[: self._count]
            self._count -= len(self._chunk)
        count = min(len(view), len(self._chunk))
        view[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        return count

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def _parts(stored: Stored, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield the parts of objects that make up bytes ``[start, end)`` of a storage."""
    position = 0
    for url, first, last in stored.at:
        low, high = max(start, position), min(end, position + last - first)
        if low < high:
            yield url, first + low - position, first + high - position
        position += last - first
