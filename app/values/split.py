"""A file split into its frame and its storages, as a client announces it before it sends a byte.

The file is sent in numbered blocks: first the frame's blocks, then each storage's, in the order of the file. A block
is at most 16 MiB of one piece, and is named by its digest, received, verified and resumed as a whole.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

from ..errors import InvalidRequest
from .digest import BLOCK_DIGEST_SIZE, BLOCK_SIZE
from .manifest import MIN_BLOB_SIZE
from .span import Span, Spans

MAX_FILE_SIZE = 2**62
MAX_STORAGES = 500_000
"""The limit on records of a torch file."""


class Split:
    """A split file. ``storages`` are spans of a file of ``size`` bytes, in order, and ``frame`` is the spans between
    them; ``blocks`` are the raw digests of all blocks, joined. Raises InvalidRequest ``bad-split`` for a wrong split.
    """

    def __init__(self, size: int, storages: Iterable[Span], blocks: bytes) -> None:
        self.size = size
        self.blocks = blocks
        self.storages, self.frame = _divided(size, storages)
        self._places = array("Q", accumulate((span.length for span in self.frame), initial=0))
        """Bytes of the frame before each of its spans, and then their total."""
        self._firsts = array("Q", [0])
        """The number of each piece's first block, and then the count of blocks."""
        self._starts = array("Q", accumulate(self._lengths(), initial=0))
        """Bytes before each piece if the pieces are joined, and then their total."""
        for length in self._lengths():
            self._firsts.append(self._firsts[-1] + max(1, -(-length // BLOCK_SIZE)))
        if len(blocks) != self.count * BLOCK_DIGEST_SIZE:
            raise InvalidRequest(
                f"a file with these storages has {self.count} blocks of at most {BLOCK_SIZE:,} bytes, each with a "
                f"digest; {len(blocks) // BLOCK_DIGEST_SIZE} digests were given",
                code="bad-split",
            )
        self._check_lengths()

    @property
    def count(self) -> int:
        """Number of blocks."""
        return self._firsts[-1]

    def numbers(self, piece: int) -> range:
        """The blocks of a piece: 0 is the frame, 1 the first storage, and so on."""
        return range(self._firsts[piece], self._firsts[piece + 1])

    def piece(self, number: int) -> int:
        """The piece that a block belongs to."""
        return bisect_right(self._firsts, number) - 1

    def digests(self, numbers: range) -> bytes:
        """The raw digests of a run of blocks, joined."""
        return self.blocks[numbers.start * BLOCK_DIGEST_SIZE : numbers.stop * BLOCK_DIGEST_SIZE]

    def spans(self, number: int) -> tuple[Span, ...]:
        """Spans of the file that make up a block, in order."""
        piece = self.piece(number)
        start = (number - self._firsts[piece]) * BLOCK_SIZE
        if piece == 0:
            return tuple(self._of_frame(start, start + BLOCK_SIZE))
        storage = self.storages[piece - 1]
        return (Span(storage.start + start, min(storage.start + start + BLOCK_SIZE, storage.end)),)

    def length(self, numbers: range) -> int:
        """Number of bytes in a run of blocks."""
        return self._before(numbers.stop) - self._before(numbers.start) if numbers else 0

    def _before(self, number: int) -> int:
        """Number of bytes in all blocks before block ``number``."""
        if number == self.count:
            return self._starts[-1]
        piece = self.piece(number)
        return self._starts[piece] + (number - self._firsts[piece]) * BLOCK_SIZE

    def _lengths(self) -> Iterator[int]:
        """Yield the length of each piece, in bytes."""
        yield self._places[-1]
        for storage in self.storages:
            yield storage.length

    def _of_frame(self, start: int, end: int) -> Iterator[Span]:
        """Yield the file spans of bytes ``[start, end)`` of the frame."""
        for i in range(bisect_right(self._places, start) - 1, len(self.frame)):
            place, span = self._places[i], self.frame[i]
            if place >= end:
                return
            low, high = max(start, place), min(end, place + span.length)
            if low < high:
                yield Span(span.start + low - place, span.start + high - place)

    def _check_lengths(self) -> None:
        """Check that blocks of one digest have one length: bytes of different lengths have different digests."""
        known: dict[bytes, int] = {}
        for piece, nbytes in enumerate(self._lengths()):
            for number in self.numbers(piece):
                length = min(BLOCK_SIZE, nbytes - (number - self._firsts[piece]) * BLOCK_SIZE)
                other = known.setdefault(self.digests(range(number, number + 1)), length)
                if other != length:
                    raise InvalidRequest(
                        f"block {number} has {length:,} bytes, but the same digest as a block of {other:,} bytes; "
                        "blocks of different lengths have different digests",
                        code="bad-split",
                    )

    def weight(self) -> int:
        """Approximate size in memory, in bytes."""
        return 72 * len(self.storages) + len(self.blocks)

    def to_bytes(self) -> bytes:
        return array("Q", [self.size, len(self.storages)]).tobytes() + self.storages.to_bytes() + self.blocks

    @classmethod
    def from_bytes(cls, data: bytes) -> "Split":
        """Read a split that ``to_bytes`` wrote."""
        size, count = array("Q", data[:16])
        end = 16 + 16 * count
        return cls(size, Spans.from_bytes(data[16:end]), data[end:])


def _divided(size: int, storages: Iterable[Span]) -> tuple[Spans, Spans]:
    """Return the spans of the storages and of the frame between them."""
    if not 0 < size <= MAX_FILE_SIZE:
        raise InvalidRequest(f"the size of a file must be 1 to {MAX_FILE_SIZE} bytes", code="bad-split")
    inside, between, end = Spans(), Spans(), 0
    for number, span in enumerate(storages):
        if number == MAX_STORAGES:
            raise InvalidRequest(f"a file may have at most {MAX_STORAGES:,} storages", code="bad-split")
        if not end <= span.start or span.end > size or span.length <= MIN_BLOB_SIZE:
            raise InvalidRequest(
                f"storage {number}, [{span.start}, {span.end}), must start after the one before ends, end within the "
                f"file of {size} bytes, and have more than {MIN_BLOB_SIZE} bytes: smaller ones belong to the frame",
                code="bad-split",
            )
        if end < span.start:
            between.append(end, span.start)
        inside.append(span.start, span.end)
        end = span.end
    if end < size:
        between.append(end, size)
    return inside, between
