"""Taking a view's elements, in C order, out of stretches of its storage. Pure, and without torch.

The view is cut into boxes, and a box into lines: elements equally far apart both in the storage and in the output. One
slice assignment, in C, copies a line. A line is clipped to the current stretch.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal

from ..values.conversion import Dims

MAX_LINE = 32 * 1024
"""Elements copied in one go: a copy holds the interpreter lock."""

MAX_PLACES = 1024
"""Places of a box that are looked at one by one for the blocks needed."""

SHORT_RUN = 16
"""Elements of a run that are copied one by one if another dimension is longer."""

_LARGEST = 8
_FORMATS: Mapping[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Box:
    """A box of a view's elements. Its first element is read at ``stored`` and written at ``made``.

    ``dims`` are ``(size, stride stored, stride made)``. All but sizes count elements.
    """

    made: int
    stored: int
    dims: tuple[tuple[int, int, int], ...]


def boxes(dims: Dims, first: int, last: int) -> Iterator[Box]:
    """Cut elements ``[first, last)`` of a view into boxes, in C order; ``made`` counts from ``first``."""
    yield from _boxes(dims, first, last, 0, 0)


def _boxes(dims: Dims, first: int, last: int, made: int, stored: int) -> Iterator[Box]:
    if first >= last:
        return
    if not dims:
        yield Box(made, stored, ())
        return
    (_, stride), rest = dims[0], dims[1:]
    inner = prod(size for size, _ in rest)
    (i, skip), (end, extra) = divmod(first, inner), divmod(last, inner)
    if i == end:
        yield from _boxes(rest, skip, extra, made, stored + i * stride)
        return
    if skip:
        yield from _boxes(rest, skip, inner, made, stored + i * stride)
        made += inner - skip
        i += 1
    if i < end:
        yield Box(made, stored + i * stride, ((end - i, stride, inner), *_with_strides(rest)))
        made += (end - i) * inner
    yield from _boxes(rest, 0, extra, made, stored + end * stride)


def _with_strides(dims: Dims) -> Iterator[tuple[int, int, int]]:
    inner = prod(size for size, _ in dims)
    for size, stride in dims:
        inner //= size
        yield size, stride, inner


def touched(box: Box, itemsize: int, block: int, origin: int) -> set[int]:
    """Return the blocks of ``block`` bytes that hold elements of a box; with over MAX_PLACES places, also the blocks
    between them. ``origin`` is the byte offset of the view's first element.
    """
    start = origin + box.stored * itemsize
    starts, reach = {start}, sum((size - 1) * stride * itemsize for size, stride, _ in box.dims)
    for size, stride, _ in sorted(box.dims, key=lambda dim: -dim[1]):
        step = stride * itemsize
        if step <= block or len(starts) * size > MAX_PLACES:
            break
        starts = {place + i * step for place in starts for i in range(size)}
        reach -= (size - 1) * step
    return {index for place in starts for index in range(place // block, (place + reach) // block + 1)}


def gather(dims: Dims, itemsize: int, first: int, last: int, stretches: Iterable[tuple[int, memoryview]]) -> bytearray:
    """Copy elements ``[first, last)`` of a view from stretches of its storage that together hold all of them.

    A stretch comes with its byte offset from the view's first element, and begins with a whole element.
    """
    if itemsize == 2 * _LARGEST:  # complex128, as two numbers
        dims, first, last = (*((size, 2 * stride) for size, stride in dims), (2, 1)), 2 * first, 2 * last
        itemsize = _LARGEST
    made = bytearray((last - first) * itemsize)
    into = memoryview(made).cast(_FORMATS[itemsize])
    parts = list(boxes(dims, first, last))
    for position, data in stretches:
        stretch = data[: len(data) - len(data) % itemsize].cast(_FORMATS[itemsize])
        for box in parts:
            _copy(box, stretch, position // itemsize, into)
    return made


def copy_box(box: Box, itemsize: int, stretch: memoryview, position: int, into: memoryview) -> None:
    """Copy the elements of a box that lie in ``stretch`` to ``into``. The stretch begins with a whole element,
    ``position`` bytes behind the one that ``box.stored`` counts from.
    """
    if itemsize == 2 * _LARGEST:  # complex128, as two numbers
        dims = (*((size, 2 * stride, 2 * pace) for size, stride, pace in box.dims), (2, 1, 1))
        box, itemsize = Box(2 * box.made, 2 * box.stored, dims), _LARGEST
    typed = stretch[: len(stretch) - len(stretch) % itemsize].cast(_FORMATS[itemsize])
    _copy(box, typed, position // itemsize, into.cast(_FORMATS[itemsize]))


def _copy(box: Box, stretch: memoryview, begin: int, into: memoryview) -> None:
    """Copy a box's elements that lie in ``stretch``, which begins with element ``begin`` of the storage."""
    end = begin + len(stretch)
    if not box.dims:
        if begin <= box.stored < end:
            into[box.made] = stretch[box.stored - begin]
        return
    line = max(range(len(box.dims)), key=lambda i: (_is_plain(box.dims[i]), box.dims[i][0]))
    size, step, pace = box.dims[line]
    others = box.dims[:line] + box.dims[line + 1 :]
    for place in product(*(range(count) for count, _, _ in others)):
        stored, made = box.stored, box.made
        for i, (_, stride, inner) in zip(place, others, strict=True):
            stored += i * stride
            made += i * inner
        if not step:
            if begin <= stored < end:
                _repeat(stretch[stored - begin : stored - begin + 1], into[made : made + (size - 1) * pace + 1 : pace])
            continue
        low = max(0, -((stored - begin) // step))  # the first element not before the stretch
        high = min(size, -((stored - end) // step))
        for i in range(low, high, MAX_LINE):
            stop = min(i + MAX_LINE, high)
            source, target = stored - begin + i * step, made + i * pace
            count = stop - i - 1
            into[target : target + count * pace + 1 : pace] = stretch[source : source + count * step + 1 : step]


def _is_plain(dim: tuple[int, int, int]) -> bool:
    """Tell whether a dimension's elements are copied as one run of bytes, and are enough for that to be fast."""
    size, step, pace = dim
    return size >= SHORT_RUN and step == pace == 1


def _repeat(element: memoryview, into: memoryview) -> None:
    one, format_ = bytes(element), _FORMATS[element.itemsize]
    for i in range(0, len(into), MAX_LINE):
        line = into[i : i + MAX_LINE]
        line[:] = memoryview(one * len(line)).cast(format_)
