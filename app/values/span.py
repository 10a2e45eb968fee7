"""Half-open ranges of bytes: a single Span, and compact Spans."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Bytes ``[start, end)`` of a file, a pack or a virtual file."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


class Spans:
    """Many spans, each kept as two integers and made into a Span on access.

    Half a million Span objects take 40 MB, and the garbage collector stops every thread to scan them.
    """

    __slots__ = ("_bounds",)

    def __init__(self) -> None:
        self._bounds = array("Q")

    def append(self, start: int, end: int) -> None:
        """Add a span. Raises OverflowError unless both bounds are 0 to 2**64 - 1."""
        self._bounds.extend((start, end))

    def __len__(self) -> int:
        return len(self._bounds) // 2

    def __getitem__(self, number: int) -> Span:
        return Span(self._bounds[2 * number], self._bounds[2 * number + 1])

    def __iter__(self) -> Iterator[Span]:
        bounds = iter(self._bounds)
        return map(Span, bounds, bounds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and self._bounds == other._bounds

    __hash__ = None  # type: ignore[assignment]  # it can grow

    def to_bytes(self) -> bytes:
        """16 bytes for each span, in the byte order of this machine."""
        return self._bounds.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Spans":
        """Read spans that ``to_bytes`` wrote."""
        spans = cls()
        spans._bounds.frombytes(data)
        return spans
