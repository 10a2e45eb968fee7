"""Packs that are lists: the bytes of a pack are stretches of objects, one after another.

An upload in parts brings objects, each a run of verified blocks, and its commit writes the list. The list makes the
pack, so it is written last. A pack's addresses are those of the joined stretches.
"""

import json
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..concurrency.single_flight_cache import Cache
from ..errors import DamagedBlob, PackMissing
from ..values.span import Span
from .keys import area_of, checked_object

CACHED = 16 * 1024 * 1024
"""Size of the cache of lists, in bytes."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """``length`` bytes of an object, from ``start`` on."""

    object: str
    start: int
    length: int


ObjectSpan = tuple[str, Span]
"""An object of an area, and some of its bytes."""


class PackList:
    """The stretches of a pack, in the order of its bytes."""

    def __init__(self, stretches: Iterable[Stretch]) -> None:
        self.stretches = tuple(stretches)
        self._places = array("Q", accumulate((stretch.length for stretch in self.stretches), initial=0))

    @property
    def size(self) -> int:
        """Size of the pack, in bytes."""
        return self._places[-1]

    def parts(self, span: Span) -> list[ObjectSpan]:
        """Return the parts of objects that make up ``span`` of the pack, in order. Raises DamagedBlob if the pack ends
        before the span does.
        """
        if span.length and span.end > self.size:
            raise DamagedBlob(f"stored bytes end before offset {span.end}")
        found = []
        position = span.start
        while position < span.end:
            number = bisect_right(self._places, position) - 1
            stretch, place = self.stretches[number], self._places[number]
            end = min(span.end, self._places[number + 1])
            found.append((stretch.object, Span(stretch.start + position - place, stretch.start + end - place)))
            position = end
        return found

    def there(self, sizes: Mapping[str, int]) -> int:
        """Return how many bytes of the pack's beginning are there, if its objects have ``sizes``."""
        for stretch, place in zip(self.stretches, self._places, strict=False):
            if sizes.get(stretch.object, -1) < stretch.start + stretch.length:
                return place
        return self.size

    def weight(self) -> int:
        """Approximate size in memory, in bytes."""
        return 200 + 160 * len(self.stretches)

    def to_bytes(self) -> bytes:
        return json.dumps([[each.object, each.start, each.length] for each in self.stretches]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "PackList":
        """Read a list that ``to_bytes`` wrote. Raises ValueError."""
        match json.loads(data):
            case [*rows]:
                return cls(_stretch(row) for row in rows)
        raise ValueError("not a list")


def _stretch(row: object) -> Stretch:
    match row:
        case [str(name), int(start), int(length)] if start >= 0 and length >= 0:
            return Stretch(checked_object(name), start, length)
    raise ValueError("not a stretch of an object")


class PackLists:
    """The lists of a store, the recently used ones in memory. ``load`` reads the list of a pack, or raises
    PackMissing.
    """

    def __init__(self, load: Callable[[str], bytes]) -> None:
        self._load = load
        self._lists: Cache[PackList] = Cache(CACHED, PackList.weight)

    def get(self, name: str) -> PackList:
        """Return the list of a pack. Raises PackMissing, DamagedBlob."""
        return self._lists.get(name, lambda: self._parsed(name))

    def anew(self, name: str) -> PackList:
        """Return the list of a pack as it is in the store now. Raises PackMissing, DamagedBlob."""
        self.forget(name)
        return self.get(name)

    def forget(self, name: str) -> None:
        self._lists.drop(name)

    def read(self, name: str, span: Span, read: Callable[[str, Sequence[ObjectSpan]], memoryview]) -> memoryview:
        """Return the bytes of ``span`` of a pack. ``read`` returns the joined parts of objects of an area, or raises
        PackMissing if one is not there. Raises PackMissing, DamagedBlob if an object is missing or short.
        """
        try:
            return read(area_of(name), self.get(name).parts(span))
        except PackMissing as missing:
            self.anew(name)  # is the whole pack gone?
            raise DamagedBlob(f"an object of pack {name} is missing: {missing}") from missing

    def _parsed(self, name: str) -> PackList:
        data = self._load(name)
        try:
            return PackList.from_bytes(data)
        except (ValueError, OverflowError, RecursionError) as error:
            raise DamagedBlob(f"the list of pack {name} is damaged") from error
