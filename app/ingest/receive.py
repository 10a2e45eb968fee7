"""Receiving an upload into the spool, in bounded memory and without blocking the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Any

from ..errors import IncompleteUpload, NotACheckpoint, StateroomError
from ..store import SpoolFile
from ..values.digest import Digest
from .body import UploadBody

BATCH_SIZE = 4 * 1024 * 1024
"""Bytes written to disk in one call."""

BATCHES = 2
"""Batches of each upload: enough to keep the slowest of its writers and hashers busy all the time."""


def held_by(size: int | None) -> int:
    """Bytes of memory that an arriving upload of ``size`` bytes takes; None: size unknown."""
    whole = BATCHES * BATCH_SIZE
    return whole if size is None else min(whole, size)


SMALL = 1024 * 1024
"""Size in bytes of the largest upload that is written and hashed by one call."""


@dataclass(frozen=True, slots=True)
class SpooledUpload:
    """An upload of ``size`` bytes that arrived in full. ``name`` names its file and the pack begun for it. ``sha256``
    is known only if the client said it.
    """

    name: str
    file: SpoolFile
    size: int
    digest: Digest
    sha256: str | None


class Arrival:
    """An upload being written to its file, which ``open_file`` opens. Needs a running event loop.

    Blocking calls run in threads. A thread cannot be cancelled, so a call continues after the task that waits for it
    is cancelled: do not touch the file before ``settle`` has returned.

    The upload arrives in batches: while some are hashed and written, the next one fills. Unused parts of a batch take
    no memory. ``on_stored`` gets the size of each batch in bytes when the batch is in the file. ``size`` is the size
    of the upload, if it is known; no more bytes may be put.
    """

    def __init__(
        self, open_file: Callable[[], SpoolFile], on_stored: Callable[[int], None], size: int | None = None
    ) -> None:
        self._size = size
        self._batches = [memoryview(mmap(-1, BATCH_SIZE)) for _ in range(BATCHES)]
        self._opening = asyncio.get_running_loop().run_in_executor(None, open_file)
        self._on_stored = on_stored
        self._storing: deque[tuple[int, asyncio.Future[Any]]] = deque()

    @property
    def batch(self) -> memoryview:
        """The buffer for the next bytes."""
        return self._batches[0]

    async def put(self, count: int) -> None:
        """Store the first ``count`` bytes of ``batch``, and wait until another batch is free. Raises the error of
        opening or storing.
        """
        file = await asyncio.shield(self._opening)
        is_whole = count == self._size and count <= SMALL
        calls = (file.put_whole(self.batch[:count]),) if is_whole else file.put(self.batch[:count])
        self._storing.append((count, asyncio.gather(*map(asyncio.wrap_future, calls), return_exceptions=True)))
        self._batches.append(self._batches.pop(0))
        if len(self._storing) == BATCHES:
            await self._stored()

    async def finish(self) -> SpoolFile:
        """Wait until everything is written, and return the file."""
        while self._storing:
            await self._stored()
        return await asyncio.shield(self._opening)

    async def settle(self) -> SpoolFile | None:
        """Wait until no thread uses the file any more, with or without an error. None if it was never opened."""
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


async def receive(body: UploadBody, arrival: Arrival, expected_size: int | None) -> SpoolFile:
    """Write all of ``body`` into the file of ``arrival``.

    Raises IncompleteUpload if the size is not ``expected_size``, or if ``body`` raises an error other than ours;
    NotACheckpoint if the body is empty; StoreError if the file cannot be written.
    """
    size = 0
    while count := await _read(body, arrival.batch, size):
        size += count
        if expected_size is not None and size > expected_size:
            raise IncompleteUpload(f"the body is longer than its declared size of {expected_size} bytes")
        await arrival.put(count)
    if expected_size is not None and size < expected_size:
        raise IncompleteUpload(f"the body ended after {size} of {expected_size} bytes")
    if size == 0:
        raise NotACheckpoint("the body is empty: send the bytes of a checkpoint file", rule="empty")
    return await arrival.finish()


async def _read(body: UploadBody, buffer: memoryview, so_far: int) -> int:
    try:
        return await body.readinto(buffer)
    except StateroomError:
        raise
    except Exception as error:
        raise IncompleteUpload(f"the upload was interrupted after {so_far} bytes") from error
