"""A half-open range of bytes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Bytes ``[start, end)`` of a file, a pack or a virtual file."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start
