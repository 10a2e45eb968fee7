"""Virtual files: files whose layout is known before their first byte is read.

A virtual file is a list of pieces. A piece is literal bytes, a span of the uploaded file, a conversion of such
a span, or a conversion's checksum. Neighbours are merged as they are added. The list alone gives the file's length, and
the pieces of any range.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from .conversion import Conversion
from .span import Span


@dataclass(frozen=True, slots=True)
class Converted:
    """Bytes ``span`` of a conversion's output."""

    conversion: Conversion
    span: Span


@dataclass(frozen=True, slots=True)
class ChecksumOf:
    """Bytes ``span`` of the CRC32, four little-endian bytes, of a conversion's output."""

    conversion: Conversion
    span: Span

    def of(self, crc32: int) -> memoryview:
        """Return the bytes for a known CRC32."""
        return memoryview(crc32.to_bytes(4, "little"))[self.span.start : self.span.end]


Piece = memoryview | Span | Converted | ChecksumOf

_CONVERTED = 1 << 61
_CHECKSUM = 1 << 62
"""Bases of conversion numbers: a source at or above a base is no file offset."""


@dataclass(slots=True)
class VirtualFile:
    """Pieces in order. ``sources[i]`` is a file offset, ``~offset`` into ``literals``, or a number in ``conversions``.

    ``checksums`` are pairs of an offset into ``literals`` and a span whose CRC32 a planner could not know. Each is four
    little-endian bytes, to be filled in before the file is read.
    """

    literals: bytearray = field(default_factory=bytearray)
    starts: "array[int]" = field(default_factory=lambda: array("q"))
    sources: "array[int]" = field(default_factory=lambda: array("q"))
    size: int = 0
    checksums: list[tuple[int, Span]] = field(default_factory=list)
    conversions: list[Conversion] = field(default_factory=list)

    def add_literal(self, data: bytes | bytearray | memoryview) -> None:
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

    def add(self, source: Span | Conversion) -> None:
        """Append a span of the uploaded file, or a conversion's output."""
        if isinstance(source, Span):
            self.add_span(source)
        else:
            self.add_conversion(source)

    def add_checksum(self, span: Span) -> None:
        """Append the CRC32 of a span, to be filled in by ``filled``."""
        self.checksums.append((len(self.literals), span))
        self.add_literal(bytes(4))

    def add_conversion(self, conversion: Conversion) -> None:
        """Append a conversion's output."""
        self._add_made(conversion, _CONVERTED, conversion.size)

    def add_checksum_of(self, conversion: Conversion) -> None:
        """Append the CRC32 of a conversion's output, which is computed as the output is made."""
        self._add_made(conversion, _CHECKSUM, 4)

    def _add_made(self, conversion: Conversion, kind: int, size: int) -> None:
        if size:
            self.starts.append(self.size)
            self.sources.append(kind + len(self.conversions))
            self.conversions.append(conversion)
            self.size += size

    def checksums_of(self) -> set[Conversion]:
        """Conversions whose CRC32 is a part of the file."""
        return {self.conversions[source - _CHECKSUM] for source in self.sources if source >= _CHECKSUM}

    def extend(self, tail: "VirtualFile") -> None:
        """Append another virtual file, of literals and checksums."""
        shift = len(self.literals)
        self.checksums += [(offset + shift, span) for offset, span in tail.checksums]
        for piece in tail.pieces():
            if isinstance(piece, memoryview):
                self.add_literal(piece)
            elif isinstance(piece, ChecksumOf):
                self.add_checksum_of(piece.conversion)
            else:
                raise TypeError("only literals and checksums can be appended")

    def filled(self, crc32s: Mapping[Span, int]) -> "VirtualFile":
        """Return the file with the CRC32s of all spans of ``checksums``."""
        if not self.checksums:
            return self
        literals = bytearray(self.literals)
        for offset, span in self.checksums:
            literals[offset : offset + 4] = crc32s[span].to_bytes(4, "little")
        return replace(self, literals=literals)

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[Piece]:
        """Yield the pieces of bytes ``[start, end)``, in order."""
        end = self.size if end is None else min(end, self.size)
        literals = memoryview(self.literals).toreadonly()
        i = bisect_right(self.starts, start) - 1
        while start < end:
            piece_end = self.starts[i + 1] if i + 1 < len(self.starts) else self.size
            stop = min(piece_end, end)
            source, skip = self.sources[i], start - self.starts[i]
            if source >= _CHECKSUM:
                yield ChecksumOf(self.conversions[source - _CHECKSUM], Span(skip, skip + stop - start))
            elif source >= _CONVERTED:
                yield Converted(self.conversions[source - _CONVERTED], Span(skip, skip + stop - start))
            elif source >= 0:
                yield Span(source + skip, source + skip + stop - start)
            else:
                yield literals[~source + skip : ~source + skip + stop - start]
            start = stop
            i += 1
