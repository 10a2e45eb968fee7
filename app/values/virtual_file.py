"""Virtual files: bytes that are known in every respect before the first of them is read.

A virtual file is a list of pieces. A piece is literal bytes or a span of the uploaded file; neighbours are merged as
they are added. Its length, and what any range of it consists of, follow from the list alone.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from .span import Span

Piece = bytes | memoryview | Span


@dataclass(slots=True)
class VirtualFile:
    """Pieces in order. ``sources[i]`` is a file offset, or ``~offset`` into ``literals``.

    ``checksums`` are four-byte little-endian CRC32s that the planner could not know, as (offset into ``literals``,
    the spans they are of, one after another): they are filled in before the file is read.
    """

    literals: bytearray = field(default_factory=bytearray)
    starts: array[int] = field(default_factory=lambda: array("q"))
    sources: array[int] = field(default_factory=lambda: array("q"))
    size: int = 0
    checksums: list[tuple[int, tuple[Span, ...]]] = field(default_factory=list)

    def add_literal(self, data: bytes) -> None:
        if not data:
            return
        if not self.sources or self.sources[-1] >= 0:
            self.starts.append(self.size)
            self.sources.append(~len(self.literals))
        self.literals += data
        self.size += len(data)

    def add_span(self, span: Span) -> None:
        """Append bytes ``[span.start, span.end)`` of the uploaded file."""
        if not span.length:
            return
        if not self.sources or self.sources[-1] < 0 or self.sources[-1] + self.size - self.starts[-1] != span.start:
            self.starts.append(self.size)
            self.sources.append(span.start)
        self.size += span.length

    def add_checksum(self, spans: tuple[Span, ...]) -> None:
        """Append the CRC32 of ``spans``, to be filled in by ``fill``."""
        self.checksums.append((len(self.literals), spans))
        self.add_literal(bytes(4))

    def fill(self, offset: int, crc32: int) -> None:
        """Set the checksum at ``offset`` of the literals."""
        self.literals[offset : offset + 4] = crc32.to_bytes(4, "little")

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[Piece]:
        """What bytes ``[start, end)`` consist of, in order."""
        end = self.size if end is None else min(end, self.size)
        view = memoryview(self.literals)
        i = bisect_right(self.starts, start) - 1
        while start < end:
            piece_end = self.starts[i + 1] if i + 1 < len(self.starts) else self.size
            stop = min(piece_end, end)
            source, skip = self.sources[i], start - self.starts[i]
            if source >= 0:
                yield Span(source + skip, source + skip + stop - start)
            else:
                yield view[~source + skip : ~source + skip + stop - start]
            start = stop
            i += 1
