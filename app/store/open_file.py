"""A file that an upload arrives in, open for as long as somebody is at work on it."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..values.span import Span
from .failures import translated
from .files import Buffer, copy_spans, write_all
from .room import Room
from .windows import read_window


class OpenFile:
    """A file at ``path``, open as ``fd`` with its position at its end. Not for several threads at once, but for one
    after another.

    ``size`` counts all bytes in the file. What is added has to find room in ``room``, or is StorageFull.
    """

    def __init__(self, path: Path, fd: int, size: int, room: Room) -> None:
        self.path = path
        self._room = room
        self.size = size
        self._fd = fd

    def append(self, data: Buffer) -> Span:
        """Add bytes, and tell where they lie."""
        length = memoryview(data).nbytes
        with translated("writing an upload"), self._room.growing(length):
            write_all(self._fd, data)
        return self._grown(length)

    def append_spans(self, spans: Sequence[Span]) -> Span:
        """Add copies of ``spans`` of this very file, one after another, and tell where they lie."""
        length = sum(span.length for span in spans)
        with translated("writing an upload"), self._room.growing(length):
            copy_spans(self._fd, self._fd, spans)
        return self._grown(length)

    def read(self, span: Span) -> memoryview:
        """The bytes of ``span``, as ``PackStore.read`` gives them; from several threads at once, if need be."""
        with translated("reading an upload"):
            return read_window(self._fd, span)

    def given_away(self) -> Path:
        """A path that a store may adopt the file from."""
        return self.path

    def close(self) -> None:
        """A second time does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def discard(self) -> None:
        """Close the file and remove it, if it is still at its path. A second time does nothing."""
        if self._fd >= 0:
            self.close()
            with translated("removing an upload"):
                self.path.unlink(missing_ok=True)

    def _grown(self, length: int) -> Span:
        self.size += length
        return Span(self.size - length, self.size)
