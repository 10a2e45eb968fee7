"""A file to read whose bytes are made when they are asked for."""

from __future__ import annotations

import io


class RawFile(io.RawIOBase):
    """A file of ``size`` bytes; a subclass fills in those that are read, and may let the size grow before that."""

    def __init__(self, size: int = 0) -> None:
        self._size = size
        self._position = 0

    def fill(self, at: int, view: memoryview) -> None:
        """Write the file's bytes from ``at`` on into all of ``view``, which ends within the file."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # what can be written to
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._size - self._position)]
        self.fill(self._position, view)
        self._position += len(view)
        return len(view)
