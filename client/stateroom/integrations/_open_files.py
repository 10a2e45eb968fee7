"""Files of ``stateroom://`` that were found, are read, or are written."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from .._checkpoint import Checkpoint
from .._download.slices import ByteRanges
from .._files import FileInfo
from .._upload.loose import LooseFile

BLOCK = 4 * 1024 * 1024
"""Bytes that an open file fetches at once."""


@dataclass(frozen=True)
class FoundFile:
    """The file of a checkpoint, or one that is ``inside`` of its folder."""

    checkpoint: Checkpoint
    inside: FileInfo | None = None


Found = Union[FoundFile, LooseFile]


class Reading(AbstractBufferedFile):
    """A file that is read in ranges."""

    def __init__(self, fs: AbstractFileSystem, path: str, ranges: ByteRanges, **options: Any) -> None:
        self._ranges = ranges
        super().__init__(fs, path, "rb", size=ranges.layout.size, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self._ranges.read(start, min(end, self._ranges.layout.size)))


class Writing(io.BufferedIOBase):
    """A file that is written on this machine, and given to ``store`` when it is closed, or at the end of a
    transaction. It has a descriptor: without one, torch's FsspecWriter has all disks of the machine synchronized.
    """

    mode = "wb"

    def __init__(self, path: str, store: Callable[[Path], object], *, autocommit: bool) -> None:
        self.path = path
        self._store = store
        self._autocommit = autocommit
        self._folder = tempfile.TemporaryDirectory(prefix="stateroom-")
        self._written = Path(self._folder.name) / "written"
        self._file = self._written.open("wb")

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        """Close the file. After an error, nothing is stored."""
        if kind is not None:
            self._autocommit = False
        self.close()
        if kind is not None:
            self.discard()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        if not self.closed:
            self._file.flush()

    def fileno(self) -> int:
        self._file.flush()  # whoever takes the descriptor may write to it
        return self._file.fileno()

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        self._file.close()
        if self._autocommit:
            self.commit()

    def commit(self) -> None:
        with self._folder:
            self._store(self._written)

    def discard(self) -> None:
        self._folder.cleanup()
