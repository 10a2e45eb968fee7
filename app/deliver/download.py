"""A download that is about to be streamed: everything known about the file but its bytes."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ..concurrency.cancellation import check
from ..values.span import Span
from .assemble import HELD
from .checksums import Crc32s, Following
from .plan import Plan
from .stored_file import StoredFile
from .windows import GATHERED_STRIP, cut_windows

CONVERTING = 2 * GATHERED_STRIP


@dataclass(frozen=True, slots=True)
class Download:
    """A file to send. ``etag`` has no quotes; ``left_out`` are the dotted paths of values the file cannot hold.

    ``size`` is in bytes. ``sha256`` (hex) is that of the uploaded file, if it is known; None for every other file.
    ``crc32s`` are the known CRC32s of conversions: all downloads of a plan share them, and add those that they learn.
    """

    size: int
    etag: str
    filename: str
    left_out: tuple[str, ...]
    sha256: str | None
    plan: Plan
    stored: StoredFile
    crc32s: Crc32s
    executor: Executor

    @property
    def held(self) -> int:
        """Bytes of memory that sending takes, beside mapped pages: converted bytes are held twice, in the window
        being sent and in the next one. A storage that is put together takes more.
        """
        sources = (each.source for each in self.plan.storages)
        made = any(self.stored.blobs.is_made(one if isinstance(one, Span) else one.source) for one in sources)
        return (HELD if made else 0) + (CONVERTING if self.plan.file.conversions else 0)

    async def windows(self, start: int, end: int, *, client_verifies: bool = False) -> AsyncIterator[list[memoryview]]:
        """Yield bytes ``[start, end)``, a window at a time, read in a thread, and verified as far as the client does
        not verify them. Raises StoreError, and Cancelled once the current work is given up.

        The views may be sent as they are. They map the page cache: release them once they are sent.
        """
        loop = asyncio.get_running_loop()
        slices = self._slices(start, end, client_verifies=client_verifies)
        while (views := await loop.run_in_executor(self.executor, next, slices, _END)) is not _END:
            if views is not None:
                yield views

    def hash(self) -> str:
        """Read the whole file, verified, a window at a time, and return its SHA-256 in hex. Blocks. Raises StoreError,
        and Cancelled once the current work is given up.
        """
        sha256 = hashlib.sha256()
        for views in self._slices(0, self.size, client_verifies=False):
            check()
            for view in views or ():
                sha256.update(view)
        return sha256.hexdigest()

    def _slices(self, start: int, end: int, *, client_verifies: bool) -> Iterator[list[memoryview] | None]:
        """Yield windows, and None where other downloads may run before the next window. Blocks."""
        learning = Following(self.stored.checksums, self.crc32s) if self.plan.format == "pt" else None
        reader = self.stored.reader
        windows = cut_windows(self.plan.file, self.stored.blobs, start, end, reader.at_hand)
        for window in reader.looking_ahead(windows):
            yield (yield from reader.load(window, learning, whole_as_they_are=client_verifies))
        if learning is not None:
            learning.keep()


class _End(Enum):
    END = auto()


_END: Final = _End.END
