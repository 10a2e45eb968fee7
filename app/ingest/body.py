"""The source of an upload's bytes."""

from collections.abc import AsyncIterator
from typing import Protocol


class UploadBody(Protocol):
    async def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the next bytes and return their number: less than the buffer's size only at the end,
        0 after it. Raises the error that interrupts the body.
        """


class Chunks:
    """A UploadBody that arrives in chunks of any size."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    async def readinto(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            if not self._left:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    break
                self._left = memoryview(chunk)
            count = min(len(self._left), len(buffer) - filled)
            buffer[filled : filled + count] = self._left[:count]
            self._left = self._left[count:]
            filled += count
        return filled
