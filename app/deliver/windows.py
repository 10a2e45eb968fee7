"""Cutting a range of a virtual file into windows: what is read, verified and sent in one go. Pure.

A window is at most some 16 MiB of output. Blobs are verified block by block, so a window names the blocks it needs and
which part of each block goes out, in order. What has to be read for it is bounded too: ten bytes of each of a hundred
blocks are fifty windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..values.digest import BLOCK_SIZE, Digest
from ..values.span import Span
from ..values.virtual_file import VirtualFile
from .spans import BlobMap, BlobSpan

WINDOW_SIZE = BLOCK_SIZE + 64 * 1024
"""Bytes: a whole block, and the headers around it."""

MAX_READ = 2 * BLOCK_SIZE
"""Bytes of the blocks that one window needs."""

MAX_PARTS = 4096
"""Parts of one window: enough to fill it with storages of 4 KiB."""


@dataclass(frozen=True, slots=True)
class Block:
    """Block ``index`` of a blob: ``length`` bytes from ``index * BLOCK_SIZE`` on."""

    digest: Digest
    index: int
    length: int


@dataclass(frozen=True, slots=True)
class BlockPart:
    """Bytes ``span`` of a block."""

    block: Block
    span: Span


@dataclass(slots=True)
class Window:
    """Literal bytes and parts of blocks, in the order in which they are sent.

    ``size`` is what goes out, ``blocks`` are the blocks needed for it, ``read`` is their size.
    """

    parts: list[memoryview | BlockPart] = field(default_factory=list)
    size: int = 0
    blocks: dict[Block, None] = field(default_factory=dict)
    read: int = 0

    def add(self, part: memoryview | BlockPart) -> None:
        self.read += self._to_read(part)
        self.parts.append(part)
        self.size += size_of(part)
        if isinstance(part, BlockPart):
            self.blocks[part.block] = None

    def has_room_for(self, part: memoryview | BlockPart) -> bool:
        return not self.parts or (
            len(self.parts) < MAX_PARTS
            and self.size + size_of(part) <= WINDOW_SIZE
            and self.read + self._to_read(part) <= MAX_READ
        )

    def _to_read(self, part: memoryview | BlockPart) -> int:
        """Bytes that have to be read for ``part`` and for nothing before it."""
        return part.block.length if isinstance(part, BlockPart) and part.block not in self.blocks else 0


def size_of(part: memoryview | BlockPart) -> int:
    return part.span.length if isinstance(part, BlockPart) else len(part)


def cut_windows(file: VirtualFile, blobs: BlobMap, start: int, end: int) -> Iterator[Window]:
    """The windows of bytes ``[start, end)`` of a virtual file."""
    window = Window()
    for part in _parts(file, blobs, start, end):
        if not window.has_room_for(part):
            yield window
            window = Window()
        window.add(part)
    if window.parts:
        yield window


def _parts(file: VirtualFile, blobs: BlobMap, start: int, end: int) -> Iterator[memoryview | BlockPart]:
    for piece in file.pieces(start, end):
        if isinstance(piece, Span):
            yield from blocks_of(blobs, piece)
        else:
            yield piece


def blocks_of(blobs: BlobMap, span: Span) -> Iterator[BlockPart]:
    """The parts of blocks that ``span`` of the uploaded file consists of, in order."""
    for blob in blobs.resolve(span):
        yield from blocks_in(blob)


def blocks_in(blob: BlobSpan) -> Iterator[BlockPart]:
    """The parts of blocks that a span of one blob consists of, in order."""
    position = blob.span.start
    while position < blob.span.end:
        index = position // BLOCK_SIZE
        origin = index * BLOCK_SIZE
        stop = min(blob.span.end, origin + BLOCK_SIZE)
        block = Block(blob.digest, index, min(BLOCK_SIZE, blob.length - origin))
        yield BlockPart(block, Span(position - origin, stop - origin))
        position = stop
