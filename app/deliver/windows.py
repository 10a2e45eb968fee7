"""Cutting a range of a virtual file into windows: what is read, verified and sent in one go. Pure.

A window is some 16 MiB of output. Blobs are verified block by block, so a window names the blocks it needs and which
part of each block goes out, in order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..values.digest import BLOCK_SIZE, Digest
from ..values.span import Span
from ..values.virtual_file import VirtualFile
from .spans import BlobMap

WINDOW_SIZE = BLOCK_SIZE + 64 * 1024
"""Bytes: a whole block, and the headers around it."""

MAX_PARTS = 4096
"""Parts of one window: enough to fill it with storages of 4 KiB."""


@dataclass(frozen=True, slots=True)
class Block:
    """Block ``index`` of a blob: its bytes ``[index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE)``, or up to its end."""

    digest: Digest
    index: int


@dataclass(frozen=True, slots=True)
class BlockPart:
    """Bytes ``span`` of a block."""

    block: Block
    span: Span


@dataclass(slots=True)
class Window:
    """Literal bytes and parts of blocks, in the order in which they are sent."""

    parts: list[memoryview | BlockPart] = field(default_factory=list)
    size: int = 0

    @property
    def blocks(self) -> list[Block]:
        """The blocks needed, each once, in the order of first use."""
        return list(dict.fromkeys(part.block for part in self.parts if isinstance(part, BlockPart)))


def cut_windows(file: VirtualFile, blobs: BlobMap, start: int, end: int) -> Iterator[Window]:
    """The windows of bytes ``[start, end)`` of a virtual file."""
    window = Window()
    for part, size in _parts(file, blobs, start, end):
        if window.parts and (window.size + size > WINDOW_SIZE or len(window.parts) >= MAX_PARTS):
            yield window
            window = Window()
        window.parts.append(part)
        window.size += size
    if window.parts:
        yield window


def _parts(file: VirtualFile, blobs: BlobMap, start: int, end: int) -> Iterator[tuple[memoryview | BlockPart, int]]:
    for piece in file.pieces(start, end):
        if isinstance(piece, Span):
            for part in blocks_of(blobs, piece):
                yield part, part.span.length
        else:
            yield piece, len(piece)


def blocks_of(blobs: BlobMap, span: Span) -> Iterator[BlockPart]:
    """The parts of blocks that ``span`` of the uploaded file consists of, in order."""
    for blob in blobs.resolve(span):
        position = blob.span.start
        while position < blob.span.end:
            index = position // BLOCK_SIZE
            origin = index * BLOCK_SIZE
            stop = min(blob.span.end, origin + BLOCK_SIZE)
            yield BlockPart(Block(blob.digest, index), Span(position - origin, stop - origin))
            position = stop
