"""Receiving: from the wire to the spool, in bounded memory and without ever making the event loop wait."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from ..errors import IncompleteUpload, NotACheckpoint, StateroomError
from ..store import SpoolFile
from ..values.digest import Digest

BATCH_SIZE = 4 * 1024 * 1024
"""Bytes handed to the disk at a time: one batch is being written while the next one fills."""


@dataclass(frozen=True, slots=True)
class SpooledUpload:
    """An upload that has arrived in full: ``size`` bytes. ``name`` is its file's, and that of the pack begun for it."""

    name: str
    file: SpoolFile
    size: int
    digest: Digest
    sha256: str


class Arrival:
    """An upload on its way into its file, which ``open_file`` opens. Needs a running event loop.

    What blocks is done in threads, one call at a time. A thread cannot be cancelled, so a call goes on when the task
    that waits for it is: nobody may touch the file before ``settle`` has returned.

    Chunks are copied into batches, because each chunk that a thread hashed by itself would be one more wait for the
    interpreter lock. There are two batches: while one is written, the other fills. Each is made when it is needed:
    an upload that sends nothing holds none, a short one holds one.
    """

    def __init__(self, open_file: Callable[[], SpoolFile]) -> None:
        self._loop = asyncio.get_running_loop()
        self._opening = self._loop.run_in_executor(None, open_file)
        self._writing: asyncio.Future[None] | None = None
        self._batch: bytearray | None = None
        self._spare: bytearray | None = None
        self._filled = 0

    async def put(self, chunk: bytes) -> None:
        """Take ``chunk``; waits when a whole batch is ahead of it. Raises what opening or writing raised."""
        taken = 0
        while taken < len(chunk):
            if self._batch is None:
                self._batch = bytearray(BATCH_SIZE)
            count = min(len(chunk) - taken, BATCH_SIZE - self._filled)
            self._batch[self._filled : self._filled + count] = memoryview(chunk)[taken : taken + count]
            self._filled += count
            taken += count
            if self._filled == BATCH_SIZE:
                await self._write_batch()

    async def finish(self) -> SpoolFile:
        """Write what is left; the file, when all of it is written."""
        await self._write_batch()
        await self._written()
        return await asyncio.shield(self._opening)

    async def settle(self) -> SpoolFile | None:
        """Wait until no thread touches the file any more, whatever came of it. None: it was never opened."""
        calls: list[asyncio.Future[Any]] = [self._opening]
        if self._writing is not None:
            calls.append(self._writing)
        await asyncio.gather(*calls, return_exceptions=True)
        return None if self._opening.exception() else self._opening.result()

    async def _write_batch(self) -> None:
        file = await asyncio.shield(self._opening)
        await self._written()
        if self._batch is None:
            return
        batch = memoryview(self._batch)[: self._filled]
        self._writing = self._loop.run_in_executor(None, file.write, [batch])
        self._batch, self._spare, self._filled = self._spare, self._batch, 0

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)


async def receive(chunks: AsyncIterator[bytes], arrival: Arrival, expected_size: int | None) -> SpoolFile:
    """Write all of ``chunks`` into the file of ``arrival``.

    Raises IncompleteUpload when that is not ``expected_size`` bytes, or when ``chunks`` fails with anything but one
    of our errors; NotACheckpoint when it is nothing at all; StoreError when it cannot be written.
    """
    size = 0
    while (chunk := await _next(chunks, size)) is not None:
        size += len(chunk)
        if expected_size is not None and size > expected_size:
            raise IncompleteUpload(f"the body is longer than the {expected_size} bytes it was said to have")
        await arrival.put(chunk)
    if expected_size is not None and size < expected_size:
        raise IncompleteUpload(f"the body ended after {size} of {expected_size} bytes")
    if size == 0:
        raise NotACheckpoint("the body is empty: send the bytes of a checkpoint file", rule="empty")
    return await arrival.finish()


async def _next(chunks: AsyncIterator[bytes], so_far: int) -> bytes | None:
    """The next chunk; None at the end."""
    try:
        return await anext(chunks, None)
    except StateroomError:
        raise
    except Exception as error:
        raise IncompleteUpload(f"the upload broke off after {so_far} bytes") from error
