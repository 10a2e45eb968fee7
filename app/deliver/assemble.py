"""Puts the blocks of made storages together, from verified blocks of the blobs that hold their chunks."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..concurrency.cancellation import check
from ..values.digest import BLOCK_SIZE
from ..values.manifest import MIN_BLOB_SIZE
from ..values.span import Span
from .gather import Box, copy_box, touched
from .made import Made, MadeChunk
from .spans import BlobSpan
from .windows import Block, blocks_in

KEPT = 4
"""Blocks of chunks that are kept for the next block of the storage: it needs the same ones, if the tensor was sharded
by columns over so many processes.
"""

HELD = (KEPT + 2) * BLOCK_SIZE
"""Most bytes in memory for one download: the kept blocks, a made one, and the one that is sent meanwhile."""

ReadBlocks = Callable[[Sequence[Block]], Mapping[Block, memoryview]]


class Assembler:
    """Maker of blocks, from those that ``read`` reads and verifies. Not for use by two threads at once."""

    def __init__(self, read: ReadBlocks) -> None:
        self._read = read
        self._kept: dict[Block, memoryview] = {}
        self._last: tuple[Block, memoryview] | None = None

    def block(self, block: Block, made: Made) -> memoryview:
        """Return a block of a made storage. Raises as ``read`` does, and Cancelled."""
        if self._last is None or self._last[0] != block:
            self._last = None  # not two at once
            self._last = block, self._make(block, made)
        return self._last[1]

    def _make(self, block: Block, made: Made) -> memoryview:
        start = block.index * BLOCK_SIZE
        into = memoryview(bytearray(block.length))
        for chunk, box in made.boxes(Span(start, start + block.length)):
            check()
            for position, data in self._stretches(chunk, box, made.itemsize):
                copy_box(box, made.itemsize, data, position, into)
        return into.toreadonly()

    def _stretches(self, chunk: MadeChunk, box: Box, itemsize: int) -> Iterator[tuple[int, memoryview]]:
        """Yield the parts of a chunk's blob with a box's elements, each with its place behind the first element."""
        origin = chunk.span.start
        if chunk.span.length <= MIN_BLOB_SIZE:  # in the frame, where a block may end within an element
            yield 0, memoryview(b"".join(self._parts(chunk, chunk.span)))
            return
        for index in sorted(touched(box, itemsize, BLOCK_SIZE, origin)):
            span = Span(max(index * BLOCK_SIZE, origin), min((index + 1) * BLOCK_SIZE, chunk.span.end))
            for part in self._parts(chunk, span):
                yield span.start - origin, part

    def _parts(self, chunk: MadeChunk, span: Span) -> Iterator[memoryview]:
        for part in blocks_in(BlobSpan(chunk.digest, span, chunk.length)):
            yield self._stored(part.block)[part.span.start : part.span.end]

    def _stored(self, block: Block) -> memoryview:
        data = self._kept.pop(block, None)
        if data is None:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            data = self._read([block])[block]
        self._kept[block] = data
        return data
