"""Cutting a range of a virtual file into windows. A window is read, verified and sent in one go. Pure.

A window is at most some 16 MiB of output. Blobs are verified block by block, so a window names the blocks it needs and
the part of each block that is sent, in order. Reading for a window is bounded too: ten bytes of each of a hundred
blocks are fifty windows.

A conversion is cut into strips of elements. A strip also names the blocks it is made of. A strip of more blocks than a
window may hold (of a large matrix that was saved transposed) has a window to itself, and its blocks are read one after
another.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from ..values.conversion import Conversion
from ..values.digest import BLOCK_SIZE, Digest
from ..values.span import Span
from ..values.virtual_file import ChecksumOf, Converted, VirtualFile
from .gather import boxes, touched
from .made import Made
from .spans import BlobMap, BlobSpan

WINDOW_SIZE = BLOCK_SIZE + 64 * 1024
"""Output bytes: a whole block, and the headers around it."""

MAX_READ = 2 * BLOCK_SIZE
"""Bytes of the blocks that one window needs."""

MAX_PARTS = 4096
"""Parts of one window: enough to fill it with storages of 4 KiB."""

CONTIGUOUS_STRIP = 4 * 1024 * 1024
"""Bytes, before or after, that are converted in one go."""

GATHERED_STRIP = BLOCK_SIZE
"""Bytes converted in one go if elements lie apart: the more bytes, the fewer reads of a block."""


@dataclass(frozen=True, slots=True)
class Block:
    """Block ``index`` of a blob, or with ``made`` of a storage that is put together: ``length`` bytes from
    ``index * BLOCK_SIZE`` on.
    """

    digest: Digest
    index: int
    length: int
    made: Made | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class BlockSpan:
    """Bytes ``span`` of a block."""

    block: Block
    span: Span


@dataclass(frozen=True, slots=True)
class Strip:
    """Elements ``[first, last)`` of a conversion. ``span`` is the output bytes sent, counted from element ``first``.

    ``sources`` are the parts of blocks with the elements, each with its place in the conversion's source.
    """

    conversion: Conversion
    first: int
    last: int
    span: Span
    sources: tuple[tuple[int, BlockSpan], ...]

    @property
    def is_wide(self) -> bool:
        """Tell whether its blocks are more than a window may hold."""
        return sum(part.block.length for _, part in self.sources) > MAX_READ


Content = memoryview | BlockSpan | Strip | ChecksumOf


@dataclass(slots=True)
class Window:
    """Literal bytes, parts of blocks and strips, in the order in which they are sent.

    ``size`` is the bytes sent, ``blocks`` are the blocks needed, ``read`` is their size.
    """

    parts: list[Content] = field(default_factory=list)
    size: int = 0
    blocks: dict[Block, None] = field(default_factory=dict)
    read: int = 0

    def add(self, part: Content) -> None:
        self.read += self._to_read(part)
        self.parts.append(part)
        self.size += size_of(part)
        self.blocks.update(dict.fromkeys(_needed_at_once(part)))

    def has_room_for(self, part: Content) -> bool:
        return not self.parts or (
            len(self.parts) < MAX_PARTS
            and self.size + size_of(part) <= WINDOW_SIZE
            and self.read + self._to_read(part) <= MAX_READ
        )

    def whole_blocks(self) -> frozenset[Block]:
        """Blocks that are sent whole and unchanged, and from which no other part is made."""
        whole, used = set[Block](), set[Block]()
        for part in self.parts:
            if isinstance(part, BlockSpan) and part.span.length == part.block.length:
                whole.add(part.block)
            else:
                used.update(_needed_at_once(part))
        return frozenset(whole - used)

    def _to_read(self, part: Content) -> int:
        """Bytes to read for ``part`` that no earlier part needs."""
        if isinstance(part, Strip) and part.is_wide:
            return MAX_READ
        return sum(block.length for block in set(_needed_at_once(part)) if block not in self.blocks)


def _needed_at_once(part: Content) -> tuple[Block, ...]:
    if isinstance(part, BlockSpan):
        return (part.block,)
    if isinstance(part, Strip) and not part.is_wide:
        return tuple(source.block for _, source in part.sources)
    return ()


def size_of(part: Content) -> int:
    return len(part) if isinstance(part, memoryview) else part.span.length


def cut_windows(
    file: VirtualFile, blobs: BlobMap, start: int, end: int, at_hand: Collection[Block] = ()
) -> Iterator[Window]:
    """Cut bytes ``[start, end)`` of a virtual file into windows.

    If there is more than one, and the bytes begin with some of the blocks ``at_hand`` or with literal ones, the first
    window has only these: it can be sent while the next one is read.
    """
    window = Window()
    opens = bool(at_hand) and end - start > WINDOW_SIZE
    for part in _parts(file, blobs, start, end):
        must_be_read = any(block not in at_hand for block in _needed_at_once(part))
        if not window.has_room_for(part) or (opens and must_be_read and window.parts):
            yield window
            window = Window()
        opens = opens and not must_be_read
        window.add(part)
    if window.parts:
        yield window


def _parts(file: VirtualFile, blobs: BlobMap, start: int, end: int) -> Iterator[Content]:
    for piece in file.pieces(start, end):
        if isinstance(piece, Span):
            yield from blocks_of(blobs, piece)
        elif isinstance(piece, Converted):
            yield from strips_of(blobs, piece.conversion, piece.span)
        else:
            yield piece


def strips_of(blobs: BlobMap, conversion: Conversion, span: Span) -> Iterator[Strip]:
    """Cut bytes ``span`` of a conversion's output into strips, in order. Cuts do not depend on ``span``."""
    itemsize = conversion.to.itemsize
    length = strip_length(conversion)
    for begin in range(span.start // itemsize // length * length, -(-span.end // itemsize), length):
        first, last = max(begin, span.start // itemsize), min(begin + length, -(-span.end // itemsize))
        out = Span(max(span.start - first * itemsize, 0), min(span.end, last * itemsize) - first * itemsize)
        yield Strip(conversion, first, last, out, tuple(_sources(blobs, conversion, first, last)))


def strip_length(conversion: Conversion) -> int:
    """Elements in a strip."""
    largest = CONTIGUOUS_STRIP if conversion.is_contiguous else GATHERED_STRIP
    return largest // max(conversion.dtype.itemsize, conversion.to.itemsize)


def blocks_touched(conversion: Conversion, first: int, last: int, origin: int) -> set[int]:
    """Blocks that hold elements ``[first, last)``; ``origin`` is the offset of the conversion's source in its blob."""
    itemsize = conversion.dtype.itemsize
    found: set[int] = set()
    return found.union(*(touched(box, itemsize, BLOCK_SIZE, origin) for box in boxes(conversion.dims, first, last)))


def _sources(blobs: BlobMap, conversion: Conversion, first: int, last: int) -> Iterator[tuple[int, BlockSpan]]:
    source, itemsize = conversion.source, conversion.dtype.itemsize
    if conversion.is_contiguous:
        span = Span(source.start + first * itemsize, source.start + last * itemsize)
        yield from _placed(blocks_of(blobs, span), first * itemsize)
        return
    blob, *others = blobs.resolve(source)
    origin = 0 if others else blob.span.start  # of several blobs, as in a storage that was sharded by rows
    for index in sorted(blocks_touched(conversion, first, last, origin)):
        start, end = (
            max(index * BLOCK_SIZE, origin) - origin,
            min((index + 1) * BLOCK_SIZE, origin + source.length) - origin,
        )
        yield from _placed(blocks_of(blobs, Span(source.start + start, source.start + end)), start)


def _placed(parts: Iterator[BlockSpan], position: int) -> Iterator[tuple[int, BlockSpan]]:
    for part in parts:
        yield position, part
        position += part.span.length


def blocks_of(blobs: BlobMap, span: Span) -> Iterator[BlockSpan]:
    """Yield the parts of blocks that make up ``span`` of the uploaded file, in order."""
    for blob in blobs.resolve(span):
        yield from blocks_in(blob)


def blocks_in(blob: BlobSpan) -> Iterator[BlockSpan]:
    """Yield the parts of blocks that make up a span of one blob, in order."""
    position = blob.span.start
    while position < blob.span.end:
        index = position // BLOCK_SIZE
        origin = index * BLOCK_SIZE
        stop = min(blob.span.end, origin + BLOCK_SIZE)
        block = Block(blob.digest, index, min(BLOCK_SIZE, blob.length - origin), blob.made)
        yield BlockSpan(block, Span(position - origin, stop - origin))
        position = stop
