"""A file split into its frame and its storages, as a client announces it before it sends a byte.

All of it comes in blocks, which are numbered: those of the frame first, then those of each storage, in the order of
the file. A block is at most 16 MiB of one piece; it is named by its digest, received, verified and resumed as one.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from ..errors import InvalidRequest
from .digest import BLOCK_DIGEST_SIZE, BLOCK_SIZE
from .manifest import MIN_BLOB_SIZE
from .span import Span

MAX_FILE_SIZE = 2**62
MAX_STORAGES = 500_000
"""As many records as a torch file may have."""


class Split:
    """``storages`` are spans of a file of ``size`` bytes, in order; ``blocks`` are the raw digests of all blocks,
    joined. Raises InvalidRequest ``bad-split`` for what cannot be one.
    """

    def __init__(self, size: int, storages: Sequence[Span], blocks: bytes) -> None:
        self.size = size
        self.storages = tuple(storages)
        self.blocks = blocks
        self.frame = tuple(_between(size, self.storages))
        self._places = array("Q", accumulate((span.length for span in self.frame), initial=0))
        """How many bytes of the frame come before each of its spans, and at the end how many there are."""
        self._firsts = array("Q", [0])
        """The number of each piece's first block, and at the end how many blocks there are."""
        for length in (self._places[-1], *(span.length for span in self.storages)):
            self._firsts.append(self._firsts[-1] + max(1, -(-length // BLOCK_SIZE)))
        if len(blocks) != self.count * BLOCK_DIGEST_SIZE:
            raise InvalidRequest(
                f"a file split like this has {self.count} blocks of at most {BLOCK_SIZE:,} bytes, and so many digests; "
                f"{len(blocks) // BLOCK_DIGEST_SIZE} were given",
                code="bad-split",
            )
        self._check_lengths()

    @property
    def count(self) -> int:
        """How many blocks there are."""
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
        """Where in the file a block's bytes lie, in order."""
        piece = self.piece(number)
        start = (number - self._firsts[piece]) * BLOCK_SIZE
        if piece == 0:
            return tuple(self._of_frame(start, start + BLOCK_SIZE))
        storage = self.storages[piece - 1]
        return (Span(storage.start + start, min(storage.start + start + BLOCK_SIZE, storage.end)),)

    def length(self, numbers: range) -> int:
        """Bytes of a run of blocks."""
        pieces = range(self.piece(numbers.start), self.piece(numbers.stop - 1) + 1) if numbers else ()
        return sum(self._length(piece, numbers) for piece in pieces)

    def _length(self, piece: int, numbers: range) -> int:
        """Bytes of those blocks of a piece that are among ``numbers``."""
        first = self._firsts[piece]
        nbytes = self.storages[piece - 1].length if piece else self._places[-1]
        start, end = (min(nbytes, BLOCK_SIZE * (number - first)) for number in (numbers.start, numbers.stop))
        return end - max(0, start)

    def _of_frame(self, start: int, end: int) -> Iterator[Span]:
        """Bytes ``[start, end)`` of the frame."""
        for i in range(bisect_right(self._places, start) - 1, len(self.frame)):
            place, span = self._places[i], self.frame[i]
            if place >= end:
                return
            low, high = max(start, place), min(end, place + span.length)
            if low < high:
                yield Span(span.start + low - place, span.start + high - place)

    def _check_lengths(self) -> None:
        """Bytes of different lengths have different digests, so two blocks of one digest have one length."""
        lengths: list[int] = []
        for length in (sum(span.length for span in self.frame), *(span.length for span in self.storages)):
            full, rest = divmod(length, BLOCK_SIZE)
            lengths += [BLOCK_SIZE] * full
            if rest or not full:
                lengths.append(rest)
        digests = [self.blocks[i : i + BLOCK_DIGEST_SIZE] for i in range(0, len(self.blocks), BLOCK_DIGEST_SIZE)]
        last = dict(zip(digests, lengths, strict=True))
        for number, (digest, length) in enumerate(zip(digests, lengths, strict=True)):
            if last[digest] != length:
                raise InvalidRequest(
                    f"block {number} has {length:,} bytes and the digest of one of {last[digest]:,} bytes; blocks of "
                    "different lengths have different digests",
                    code="bad-split",
                )

    def to_bytes(self) -> bytes:
        numbers = array("Q", [self.size, len(self.storages)])
        for span in self.storages:
            numbers.extend((span.start, span.end))
        return numbers.tobytes() + self.blocks

    @classmethod
    def from_bytes(cls, data: bytes) -> "Split":
        """What ``to_bytes`` made."""
        size, count = array("Q", data[:16])
        bounds = array("Q", data[16 : 16 + 16 * count])
        return cls(size, [Span(*bounds[i : i + 2]) for i in range(0, len(bounds), 2)], data[16 + 16 * count :])


def _between(size: int, storages: Sequence[Span]) -> Iterator[Span]:
    """The frame: what of the file lies in no storage."""
    if not 0 < size <= MAX_FILE_SIZE or len(storages) > MAX_STORAGES:
        raise InvalidRequest(f"a file has 1 to {MAX_FILE_SIZE} bytes and {MAX_STORAGES} storages", code="bad-split")
    for number, (before, span) in enumerate(pairwise((Span(0, 0), *storages))):
        if not before.end <= span.start or span.end > size or span.length <= MIN_BLOB_SIZE:
            raise InvalidRequest(
                f"storage {number}, [{span.start}, {span.end}), must follow the one before, lie in the file of {size} "
                f"bytes, and have more than {MIN_BLOB_SIZE} bytes: smaller ones belong to the frame",
                code="bad-split",
            )
        if before.end < span.start:
            yield Span(before.end, span.start)
    if (end := storages[-1].end if storages else 0) < size:
        yield Span(end, size)
