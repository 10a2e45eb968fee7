"""An open file that an upload arrives in."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..values.span import Span
from .failures import translated
from .files import Buffer, copy_spans, write_all
from .room import Room
from .windows import read_window


class OpenFile:
    """A file at ``path``, open as ``fd`` with its position at its end. Only one thread at a time may use it.

    ``size`` counts all bytes in the file. Adding bytes raises StorageFull if ``room`` has no room for them.
    """

    def __init__(self, path: Path, fd: int, size: int, room: Room) -> None:
        self.path = path
        self._room = room
        self.size = size
        self._fd = fd

    def append(self, data: Buffer) -> Span:
        """Add bytes and return their span."""
        length = memoryview(data).nbytes
        with translated("writing an upload"), self._room.growing(length):
            write_all(self._fd, data)
        return self._grown(length)

    def append_spans(self, spans: Sequence[Span]) -> Span:
        """Add copies of ``spans`` of this same file, one after another, and return the span of the copies."""
        length = sum(span.length for span in spans)
        with translated("writing an upload"), self._room.growing(length):
            copy_spans(self._fd, self._fd, spans)
        return self._grown(length)

    def read(self, span: Span) -> memoryview:
        """Return the bytes of ``span`` like ``PackStore.read``. Several threads may call it at once."""
        with translated("reading an upload"):
            return read_window(self._fd, span)

    def given_away(self) -> Path:
        """Return a path from which a store may adopt the file."""
        return self.path

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def discard(self) -> None:
        """Close the file and remove it if it is still at its path. A second call does nothing."""
        if self._fd >= 0:
            self.close()
            with translated("removing an upload"):
                self.path.unlink(missing_ok=True)

    def _grown(self, length: int) -> Span:
        self.size += length
        return Span(self.size - length, self.size)
