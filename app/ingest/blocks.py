"""Receiving a part of a negotiated upload: a run of blocks, each verified before it is written."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor

from ..errors import IncompleteUpload, InvalidRequest
from ..store import PartialFile
from ..store.digests import block_digest, crc32
from ..values.digest import BLOCK_SIZE
from ..values.split import Split


def groups(split: Split, numbers: range) -> Iterator[range]:
    """Runs of ``numbers`` of at most 16 MiB each: what is hashed and written in one go."""
    first, size = numbers.start, 0
    for number in numbers:
        length = split.length(range(number, number + 1))
        if size + length > BLOCK_SIZE and number > first:
            yield range(first, number)
            first, size = number, 0
        size += length
    yield range(first, numbers.stop)


def put(file: PartialFile, split: Split, numbers: range, data: memoryview) -> bytes:
    """Verify blocks and write them; their CRC32s. Blocks are written one by one, so what came before a damaged one is
    there. Raises InvalidRequest ``digest-mismatch``.
    """
    checksums, start = bytearray(), 0
    for number in numbers:
        spans = split.spans(number)
        block = data[start : start + sum(span.length for span in spans)]
        if block_digest(block) != split.digests(range(number, number + 1)):
            raise InvalidRequest(
                f"block {number} does not have the digest that was announced for it: it was damaged on the way, or the "
                "file has changed; send it again",
                code="digest-mismatch",
            )
        file.write(spans, block)
        checksums += struct.pack("<I", crc32(block))
        start += len(block)
    return bytes(checksums)


async def receive_blocks(
    chunks: AsyncIterator[bytes], file: PartialFile, split: Split, numbers: range, threads: Executor
) -> bytes:
    """Take in blocks ``numbers``; their CRC32s, four bytes each.

    One group is hashed and written in a thread while the next one arrives, so memory is two groups. No thread touches
    the file any more when this ends, however it ends. Raises IncompleteUpload for another number of bytes,
    InvalidRequest (``digest-mismatch``), StoreError.
    """
    loop = asyncio.get_running_loop()
    body = _Body(chunks)
    buffers = [bytearray(), bytearray()]
    checksums: list[bytes] = []
    writing: asyncio.Future[bytes] | None = None
    try:
        for group in groups(split, numbers):
            size = split.length(group)
            if len(buffers[0]) < size:
                buffers[0] = bytearray(size)
            view = memoryview(buffers[0])[:size]
            await body.read_into(view)
            if writing is not None:
                checksums.append(await asyncio.shield(writing))
            writing = loop.run_in_executor(threads, put, file, split, group, view)
            buffers.reverse()
        await body.expect_end()
        if writing is not None:
            checksums.append(await asyncio.shield(writing))
    finally:
        if writing is not None:
            await asyncio.wait([writing])
    return b"".join(checksums)


class _Body:
    """Chunks, read into buffers. Raises IncompleteUpload where they end early, or do not end."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._left: memoryview = memoryview(b"")

    async def read_into(self, buffer: memoryview) -> None:
        filled = 0
        while filled < len(buffer):
            if not self._left:
                chunk: bytes = await anext(self._chunks, b"")
                self._left = memoryview(chunk)
                if not self._left:
                    raise IncompleteUpload("the body ended before the last of its blocks")
            count = min(len(self._left), len(buffer) - filled)
            buffer[filled : filled + count] = self._left[:count]
            self._left = self._left[count:]
            filled += count

    async def expect_end(self) -> None:
        more: bytes = await anext(self._chunks, b"")
        if self._left or more:
            raise IncompleteUpload("the body goes on after the last of its blocks")
