"""Receiving: from the wire to the spool, in bounded memory and without ever making the event loop wait."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Any

from ..errors import IncompleteUpload, NotACheckpoint, StateroomError
from ..store import SpoolFile
from ..values.digest import Digest
from .body import Body

BATCH_SIZE = 4 * 1024 * 1024
"""Bytes handed to the disk at a time."""

BATCHES = 2
"""Of each upload: as many as keep the slowest of those that write and hash busy all the time."""


def held_by(size: int | None) -> int:
    """Bytes of memory that an upload of ``size`` bytes takes while it arrives; None: of any size."""
    whole = BATCHES * BATCH_SIZE
    return whole if size is None else min(whole, size)


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

    What blocks is done in threads. A thread cannot be cancelled, so a call goes on when the task that waits for it is:
    nobody may touch the file before ``settle`` has returned.

    It comes in batches: while some are hashed and written, the next one fills. What of them nothing was read into takes
    no memory. ``on_stored`` is told how many bytes each batch had, when it is in the file.
    """

    def __init__(self, open_file: Callable[[], SpoolFile], on_stored: Callable[[int], None]) -> None:
        self._batches = [memoryview(mmap(-1, BATCH_SIZE)) for _ in range(BATCHES)]
        self._opening = asyncio.get_running_loop().run_in_executor(None, open_file)
        self._on_stored = on_stored
        self._storing: deque[tuple[int, asyncio.Future[Any]]] = deque()

    @property
    def batch(self) -> memoryview:
        """What the next bytes are to be read into."""
        return self._batches[0]

    async def put(self, count: int) -> None:
        """Store the first ``count`` bytes of ``batch``; waits until there is another one. Raises what opening or
        storing raised.
        """
        file = await asyncio.shield(self._opening)
        calls = file.put(self.batch[:count])
        self._storing.append((count, asyncio.gather(*map(asyncio.wrap_future, calls), return_exceptions=True)))
        self._batches.append(self._batches.pop(0))
        if len(self._storing) == BATCHES:
            await self._stored()

    async def finish(self) -> SpoolFile:
        """The file, when all of it is written."""
        while self._storing:
            await self._stored()
        return await asyncio.shield(self._opening)

    async def settle(self) -> SpoolFile | None:
        """Wait until no thread touches the file any more, whatever came of it. None: it was never opened."""
        storing = (calls for _, calls in self._storing)
        await asyncio.gather(self._opening, *storing, return_exceptions=True)
        return None if self._opening.exception() else self._opening.result()

    async def _stored(self) -> None:
        """Wait for the oldest batch."""
        count, calls = self._storing[0]
        for error in await asyncio.shield(calls):
            if error is not None:
                raise error
        self._storing.popleft()
        self._on_stored(count)


async def receive(body: Body, arrival: Arrival, expected_size: int | None) -> SpoolFile:
    """Write all of ``body`` into the file of ``arrival``.

    Raises IncompleteUpload when that is not ``expected_size`` bytes, or when ``body`` fails with anything but one of
    our errors; NotACheckpoint when it is nothing at all; StoreError when it cannot be written.
    """
    size = 0
    while count := await _read(body, arrival.batch, size):
        size += count
        if expected_size is not None and size > expected_size:
            raise IncompleteUpload(f"the body is longer than the {expected_size} bytes it was said to have")
        await arrival.put(count)
    if expected_size is not None and size < expected_size:
        raise IncompleteUpload(f"the body ended after {size} of {expected_size} bytes")
    if size == 0:
        raise NotACheckpoint("the body is empty: send the bytes of a checkpoint file", rule="empty")
    return await arrival.finish()


async def _read(body: Body, buffer: memoryview, so_far: int) -> int:
    try:
        return await body.readinto(buffer)
    except StateroomError:
        raise
    except Exception as error:
        raise IncompleteUpload(f"the upload broke off after {so_far} bytes") from error
