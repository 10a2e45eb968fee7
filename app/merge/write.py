"""Writing of a merged file: its tensors are read in units of some bytes from each source, and merged in a child."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..concurrency.cancellation import check
from ..inside.jobs import DistanceJob, compute_distance
from ..inside.reading import messages
from ..sandbox.streaming import MESSAGE, Child, streaming
from ..store.digests import crc32
from ..values.conversion import Conversion
from ..values.dtype import DTYPES, DType
from ..values.span import Span
from ..values.virtual_file import ChecksumOf, Converted, Piece, VirtualFile
from .jobs import CHILD, Part, merge
from .recipe import Recipe, spherical
from .sources import Source

UNIT = 16 * 1024 * 1024
"""Bytes of the result that are made at a time: those of one tensor, or of several small ones."""

MOST_PIECES = 256
"""Pieces of a unit."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A tensor that is that of one source, by its number."""

    source: int
    elements: Conversion

    @property
    def read(self) -> int:
        return self.elements.size


@dataclass(frozen=True, slots=True)
class Merged:
    """A tensor that is computed of its elements in each source; by a ``recipe`` of its own if ``is_slerp``."""

    elements: Sequence[Conversion]
    recipe: Recipe
    is_slerp: bool

    @property
    def read(self) -> int:
        return sum(each.size for each in self.elements) * (2 if self.is_slerp else 1)


Made = Copied | Merged


def write(file: VirtualFile, sources: Sequence[Source], made: Mapping[Conversion, Made]) -> Iterator[memoryview]:
    """Yield the bytes of ``file``, with what is ``made`` in place of its conversions."""
    with streaming(CHILD, sum(each.read for each in made.values())) as child:
        writer = _Writer(child, sources, made)
        for unit in _units(file):
            yield from writer.bytes_of(unit)


def _units(file: VirtualFile) -> Iterator[list[Piece]]:
    """Cut a file into units, in order. A part of a conversion is whole elements."""
    unit: list[Piece] = []
    left = UNIT
    for piece in file.pieces():
        for part in _cut(piece):
            size = len(part) if isinstance(part, memoryview) else _span_of(part).length
            if unit and (size > left or len(unit) == MOST_PIECES):
                yield unit
                unit, left = [], UNIT
            unit.append(part)
            left -= size
    if unit:
        yield unit


def _span_of(piece: Span | Converted | ChecksumOf) -> Span:
    return piece if isinstance(piece, Span) else piece.span


def _cut(piece: Piece) -> Iterator[Piece]:
    if isinstance(piece, (memoryview, ChecksumOf)):
        yield piece
        return
    span = _span_of(piece)
    for start in range(span.start, span.end, UNIT):
        part = Span(start, min(start + UNIT, span.end))
        yield part if isinstance(piece, Span) else Converted(piece.conversion, part)


class _Writer:
    def __init__(self, child: Child, sources: Sequence[Source], made: Mapping[Conversion, Made]) -> None:
        self._child = child
        self._sources = sources
        self._made = made
        self._crc32s: dict[Conversion, int] = {}
        self._spherical: tuple[Merged, Recipe] | None = None  # of the tensor that was begun last

    def bytes_of(self, unit: Sequence[Piece]) -> Iterator[memoryview]:
        wanted = [piece for piece in unit if isinstance(piece, Converted) and self._is_merged(piece.conversion)]
        data = self._merge(wanted) if wanted else memoryview(b"")
        for piece in unit:
            check()
            if isinstance(piece, memoryview):
                yield piece
            elif isinstance(piece, ChecksumOf):
                yield piece.of(self._crc32s[piece.conversion])
            elif isinstance(piece, Span):
                yield memoryview(self._sources[0].stored.reader.bytes_of(self._sources[0].stored.blobs, piece))
            elif self._is_merged(piece.conversion):
                yield self._followed(piece.conversion, data[: piece.span.length])
                data = data[piece.span.length :]
            else:
                for view in self._copied(piece):
                    yield self._followed(piece.conversion, view)
        for source in self._sources:
            source.stored.reader.forget()

    def _is_merged(self, conversion: Conversion) -> bool:
        return isinstance(self._made[conversion], Merged)

    def _followed(self, conversion: Conversion, data: memoryview) -> memoryview:
        self._crc32s[conversion] = crc32(data, self._crc32s.get(conversion, 0))
        return data

    def _copied(self, piece: Converted) -> Iterator[memoryview]:
        made = self._made[piece.conversion]
        assert isinstance(made, Copied)  # noqa: S101 - it is not merged
        stored = self._sources[made.source].stored
        return stored.reader.converted(stored.blobs, made.elements, piece.span)

    def _merge(self, pieces: Sequence[Converted]) -> memoryview:
        """Merge the elements of ``pieces``, one after another."""
        places: list[tuple[Merged, Span]] = []
        parts: list[Part] = []
        for piece in pieces:
            made = self._made[piece.conversion]
            assert isinstance(made, Merged)  # noqa: S101 - it was asked
            itemsize = piece.conversion.to.itemsize
            place = Span(piece.span.start // itemsize, piece.span.end // itemsize)
            places.append((made, place))
            to, factor = _real(piece.conversion.to)
            dtypes = tuple(_real(each.to)[0] for each in made.elements)
            parts.append(Part(place.length * factor, dtypes, to, self._recipe(made)))
        return merge(self._child, parts, self._messages(places))

    def _messages(self, places: Iterable[tuple[Merged, Span]]) -> Iterator[memoryview]:
        for number, source in enumerate(self._sources):
            for made, place in places:
                elements = made.elements[number]
                itemsize = elements.to.itemsize
                span = Span(place.start * itemsize, place.end * itemsize)
                for strip in source.stored.reader.converted(source.stored.blobs, elements, span):
                    for start in range(0, len(strip), MESSAGE):
                        yield strip[start : start + MESSAGE]

    def _recipe(self, made: Merged) -> Recipe:
        if not made.is_slerp:
            return made.recipe
        if self._spherical is None or self._spherical[0] is not made:
            self._spherical = made, spherical(self._cosine(made), made.recipe)
        return self._spherical[1]

    def _cosine(self, made: Merged) -> float | None:
        """Return the cosine of two tensors, of their finite elements."""
        one, two = made.elements

        def in_turn() -> Iterator[memoryview]:
            first, second = self._sources[0].stored, self._sources[1].stored
            for pair in zip(messages(first, one), messages(second, two), strict=True):
                check()
                yield from pair

        job = DistanceJob(_real(one.to)[0], _real(two.to)[0])
        return compute_distance(self._child, job, in_turn()).cosine


def _real(dtype: DType) -> tuple[DType, int]:
    """Return the dtype of the real numbers that an element consists of, and their number."""
    return (DTYPES["float32"], 2) if dtype.name == "complex64" else (dtype, 1)
