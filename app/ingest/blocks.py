"""Receiving a part of a negotiated upload: a run of blocks, each verified before it is stored."""

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from ..catalog.uploads import Part
from ..errors import IncompleteUpload, InvalidRequest
from ..store.digests import block_digest, crc32
from ..values.digest import BLOCK_SIZE
from ..values.split import Split
from .body import UploadBody


def groups(split: Split, numbers: range) -> Iterator[range]:
    """Runs of ``numbers`` of at most 16 MiB each. Each run is hashed and written in one call."""
    first, size = numbers.start, 0
    for number in numbers:
        length = split.length(range(number, number + 1))
        if size + length > BLOCK_SIZE and number > first:
            yield range(first, number)
            first, size = number, 0
        size += length
    yield range(first, numbers.stop)


def held_by(split: Split, numbers: range) -> int:
    """Bytes of memory needed to receive ``numbers``."""
    return min(2 * BLOCK_SIZE, split.length(numbers))


Put = Callable[[range, memoryview], object]
"""Stores the bytes of a run of blocks, which are durable when it returns."""


def verify(split: Split, numbers: range, data: memoryview) -> bytes:
    """Return the CRC32s of blocks. Raises InvalidRequest ``digest-mismatch`` for blocks that were not announced."""
    checksums, start = bytearray(), 0
    for number in numbers:
        block = data[start : start + split.length(range(number, number + 1))]
        if block_digest(block) != split.digests(range(number, number + 1)):
            raise InvalidRequest(
                f"block {number} does not match its announced digest: it was damaged in transit, or the file has "
                "changed; send it again",
                code="digest-mismatch",
            )
        checksums += struct.pack("<I", crc32(block))
        start += len(block)
    return bytes(checksums)


async def receive_blocks(body: UploadBody, put: Put, split: Split, numbers: range, threads: Executor) -> Sequence[Part]:
    """Receive the blocks ``numbers``, and return them as the parts that are stored.

    One group is hashed (in ``threads``) and stored while the next one arrives, so memory is two groups. When this ends,
    with or without an error, nothing is being stored any more. Raises IncompleteUpload for another number of bytes,
    InvalidRequest (``digest-mismatch``), StoreError.
    """
    loop = asyncio.get_running_loop()
    buffers = [bytearray(), bytearray()]
    parts: list[Part] = []
    storing: asyncio.Task[Part] | None = None

    async def store(group: range, data: memoryview) -> Part:
        checksums = await loop.run_in_executor(threads, verify, split, group, data)
        await loop.run_in_executor(None, put, group, data)
        return Part(group.start, checksums)

    try:
        for group in groups(split, numbers):
            size = split.length(group)
            if len(buffers[0]) < size:
                buffers[0] = bytearray(size)
            view = memoryview(buffers[0])[:size]
            if await body.readinto(view) < size:
                raise IncompleteUpload("the body is shorter than its blocks")
            if storing is not None:
                parts.append(await asyncio.shield(storing))
            storing = asyncio.create_task(store(group, view))
            buffers.reverse()
        if await body.readinto(memoryview(bytearray(1))):
            raise IncompleteUpload("the body is longer than its blocks")
        if storing is not None:
            parts.append(await asyncio.shield(storing))
    finally:
        if storing is not None:
            await asyncio.wait([storing])
    return parts
