"""A readable file whose bytes are produced on demand."""

from __future__ import annotations

import io
from abc import abstractmethod


class RawFile(io.RawIOBase):
    """A file of ``size`` bytes, produced by a subclass's ``fill``; the subclass may let the size grow before a read."""

    def __init__(self, size: int = 0) -> None:
        self._size = size
        self._position = 0

    @abstractmethod
    def fill(self, at: int, view: memoryview) -> None:
        """Write the file's bytes from ``at`` on into all of ``view``, which ends within the file."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # a writable buffer
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._size - self._position)]
        self.fill(self._position, view)
        self._position += len(view)
        return len(view)
