"""Receiving a part of a negotiated upload: a run of blocks, each verified before it is written."""

import asyncio
import struct
from collections.abc import Iterator
from concurrent.futures import Executor

from ..errors import IncompleteUpload, InvalidRequest
from ..store import PartialFile
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


def put(file: PartialFile, split: Split, numbers: range, data: memoryview) -> bytes:
    """Verify and write blocks, and return their CRC32s. Blocks are written one by one, so the blocks before a
    damaged one are kept. Raises InvalidRequest ``digest-mismatch``.
    """
    checksums, start = bytearray(), 0
    for number in numbers:
        spans = split.spans(number)
        block = data[start : start + sum(span.length for span in spans)]
        if block_digest(block) != split.digests(range(number, number + 1)):
            raise InvalidRequest(
                f"block {number} does not match its announced digest: it was damaged in transit, or the file has "
                "changed; send it again",
                code="digest-mismatch",
            )
        file.write(spans, block)
        checksums += struct.pack("<I", crc32(block))
        start += len(block)
    return bytes(checksums)


async def receive_blocks(body: UploadBody, file: PartialFile, split: Split, numbers: range, threads: Executor) -> bytes:
    """Receive the blocks ``numbers``, and return their CRC32s, four bytes each.

    One group is hashed and written in a thread while the next one arrives, so memory is two groups. When this ends,
    with or without an error, no thread uses the file any more. Raises IncompleteUpload for another number of bytes,
    InvalidRequest (``digest-mismatch``), StoreError.
    """
    loop = asyncio.get_running_loop()
    buffers = [bytearray(), bytearray()]
    checksums: list[bytes] = []
    writing: asyncio.Future[bytes] | None = None
    try:
        for group in groups(split, numbers):
            size = split.length(group)
            if len(buffers[0]) < size:
                buffers[0] = bytearray(size)
            view = memoryview(buffers[0])[:size]
            if await body.readinto(view) < size:
                raise IncompleteUpload("the body is shorter than its blocks")
            if writing is not None:
                checksums.append(await asyncio.shield(writing))
            writing = loop.run_in_executor(threads, put, file, split, group, view)
            buffers.reverse()
        if await body.readinto(memoryview(bytearray(1))):
            raise IncompleteUpload("the body is longer than its blocks")
        if writing is not None:
            checksums.append(await asyncio.shield(writing))
    finally:
        if writing is not None:
            await asyncio.wait([writing])
    return b"".join(checksums)
