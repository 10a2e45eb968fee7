"""Conversion of a strip's stored bytes to the bytes that are sent."""

from array import array
from collections.abc import Iterable

from .cast import cast
from .gather import gather
from .windows import Strip

_WORDS = {2: "H", 4: "I", 8: "Q"}
_FLIPPED = bytes(byte ^ 0x80 for byte in range(256))


def convert(strip: Strip, stretches: Iterable[tuple[int, memoryview]]) -> memoryview:
    """Make the bytes sent of a strip. ``stretches`` are its sources, each with its position."""
    conversion = strip.conversion
    dtype, to = conversion.dtype, conversion.to
    data = _elements(strip, stretches)
    is_little = conversion.byteorder == "little"
    if conversion.flips or dtype != to:
        if not is_little:
            data, is_little = _swapped(data, dtype.word), True
        if conversion.flips:
            data = _with_signs_flipped(data, dtype.itemsize, conversion.flips)
        if dtype != to:
            data = cast(data, dtype.name, to.name)
    if is_little != (conversion.to_byteorder == "little"):
        data = _swapped(data, to.word)
    return memoryview(data).cast("B")[strip.span.start : strip.span.end]


def _elements(strip: Strip, stretches: Iterable[tuple[int, memoryview]]) -> memoryview | bytearray:
    conversion = strip.conversion
    itemsize = conversion.dtype.itemsize
    if len(strip.sources) > 1 and any(position % itemsize for position, _ in strip.sources):
        stretches = list(stretches)
        stretches = [(stretches[0][0], memoryview(b"".join(data for _, data in stretches)))]
    if conversion.is_contiguous:
        parts = [data for _, data in stretches]
        return parts[0] if len(parts) == 1 else bytearray().join(parts)
    return gather(conversion.dims, itemsize, strip.first, strip.last, stretches)


def _swapped(data: memoryview | bytearray, word: int) -> bytearray | memoryview:
    """Reverse the bytes of each word of ``word`` bytes."""
    if word == 1:
        return data
    words = array(_WORDS[word], bytes(data))
    words.byteswap()
    return memoryview(words).cast("B")


def _with_signs_flipped(data: memoryview | bytearray, itemsize: int, places: Iterable[int]) -> bytearray:
    made = bytearray(data)
    for place in places:
        made[place::itemsize] = made[place::itemsize].translate(_FLIPPED)
    return made
