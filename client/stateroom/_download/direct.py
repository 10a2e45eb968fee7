"""Reading storages from the server's object store itself, by URLs that the server has signed.

Whatever goes wrong there, the bytes then come from the server. They are verified by the same digests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._http.elsewhere import Answer, Elsewhere, Unreachable
from .._http.ranges import Range
from .._http.raw import BROKEN
from .._log import LOG
from .fetch_plan import Piece
from .layout import Stored


class Direct:
    """Connections to the object store, for several threads. Usable again after ``close``."""

    def __init__(self) -> None:
        self._hosts = Elsewhere()
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
        body = _Parts(self._hosts, stored, position - stored.start, end - stored.start)
        try:
            if not body.begin():
                self._is_out_of_reach |= body.is_out_of_reach
                self._give_up(stored, "it is out of reach" if body.is_out_of_reach else "it was refused")
                yield None
                return
            try:
                yield body
            except BROKEN as error:
                self._give_up(stored, type(error).__name__)
                raise ConnectionResetError("the object store broke off") from error
        finally:
            body.close()

    def close(self) -> None:
        self._hosts.close()

    def _give_up(self, stored: Stored, why: str) -> None:
        LOG.info("Bytes %d to %d come from the server, not from its store: %s.", stored.start, stored.end, why)
        self._given_up.add(stored.start)


class _Parts:
    """Bytes ``[start, end)`` of a storage, from one object after another."""

    def __init__(self, hosts: Elsewhere, stored: Stored, start: int, end: int) -> None:
        self._hosts = hosts
        self._left = list(_parts(stored, start, end))
        self._answer: Answer | None = None
        self._count = 0
        self.is_out_of_reach = False
        """True if the object store could not be connected to."""

    def begin(self) -> bool:
        """Open the next object; False if the store refuses it."""
        url, start, end = self._left.pop(0)
        self.close()
        try:
            self._answer = self._hosts.get(url, start, end)
        except Unreachable:
            self.is_out_of_reach = True
            return False
        except BROKEN:
            return False
        self._count = end - start
        return self._answer.status == 206

    def readinto(self, view: memoryview) -> int:
        if not self._count and self._left and not self.begin():
            raise ConnectionResetError("the object store refused an object")
        if not self._count or self._answer is None:
            return 0
        count = self._answer.readinto(view[: self._count])
        if not count:
            raise ConnectionResetError("the object ended early")
        self._count -= count
        return count

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


def _parts(stored: Stored, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield the parts of objects that make up bytes ``[start, end)`` of a storage."""
    position = 0
    for url, first, last in stored.at:
        low, high = max(start, position), min(end, position + last - first)
        if low < high:
            yield url, first + low - position, first + high - position
        position += last - first
