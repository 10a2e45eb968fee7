"""A download that is about to be streamed: everything known about it but its bytes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from .checksums import Following
from .plan import Plan
from .read import BlobReader
from .spans import BlobMap
from .windows import GATHERED_STRIP, cut_windows

CONVERTING = 2 * GATHERED_STRIP


@dataclass(frozen=True, slots=True)
class Download:
    """``size`` in bytes; ``etag`` without quotes; ``left_out`` are the dotted paths of values the file cannot hold.

    ``sha256`` (hex) is known only for the file as it was uploaded.
    """

    size: int
    etag: str
    filename: str
    left_out: tuple[str, ...]
    sha256: str | None
    plan: Plan
    blobs: BlobMap
    reader: BlobReader
    checksums: Following | None
    executor: Executor

    @property
    def held(self) -> int:
        """Bytes of memory that sending it takes, beside what is mapped: what is converted lies there twice, in the
        window that is sent and in the one that is made.
        """
        return CONVERTING if self.plan.file.conversions else 0

    async def windows(self, start: int, end: int, *, client_verifies: bool = False) -> AsyncIterator[list[memoryview]]:
        """Bytes ``[start, end)``, a window at a time, read in a thread and verified, as far as the client does not do
        that itself. Raises StoreError, and Cancelled once the current work is given up.

        What is yielded may be sent as it is. It lives in the page cache, mapped: let go of it once it is sent.
        """
        loop = asyncio.get_running_loop()
        slices = self._slices(start, end, client_verifies=client_verifies)
        while (views := await loop.run_in_executor(self.executor, next, slices, _END)) is not _END:
            if views is not None:
                yield views

    def _slices(self, start: int, end: int, *, client_verifies: bool) -> Iterator[list[memoryview] | None]:
        """The windows, and None wherever others may have a turn before the next one. Blocks."""
        for window in cut_windows(self.plan.file, self.blobs, start, end):
            yield (yield from self.reader.load(window, self.checksums, whole_as_they_are=client_verifies))
        if self.checksums is not None:
            self.checksums.keep()


class _End(Enum):
    END = auto()


_END: Final = _End.END
