"""Taking a view's elements, in C order, out of stretches of its storage. Pure, and without torch.

The view is cut into boxes, a box into lines: elements that lie equally far apart, in the storage and in what is made.
A line is copied by one slice assignment, which is C; where it leaves the stretch at hand it is clipped.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal

from ..values.conversion import Dims

MAX_LINE = 32 * 1024
"""Elements copied in one go: a copy keeps the interpreter lock."""

MAX_PLACES = 1024
"""Stretches that a box is looked at in, one by one, for the blocks it needs."""

_FORMATS: Mapping[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Box:
    """Elements that are a box of the view: ``made`` and ``stored`` are where its first one goes to and lies.

    ``dims`` are ``(size, stride stored, stride made)``. All but sizes count elements.
    """

    made: int
    stored: int
    dims: tuple[tuple[int, int, int], ...]


def boxes(dims: Dims, first: int, last: int) -> Iterator[Box]:
    """Elements ``[first, last)`` of a view, in C order; ``made`` counts from ``first``."""
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
    """The blocks of ``block`` bytes that a box has elements in; of a box in very many places those between them, too.
    ``origin`` is the byte at which the view's first element lies.
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
    """Elements ``[first, last)`` of a view, of stretches of its storage that have all of them between them.

    A stretch comes with the byte at which it begins, counted from the view's first element; it begins with a whole
    element.
    """
    made = bytearray((last - first) * itemsize)
    into = memoryview(made).cast(_FORMATS[itemsize])
    parts = list(boxes(dims, first, last))
    for position, data in stretches:
        stretch = data[: len(data) - len(data) % itemsize].cast(_FORMATS[itemsize])
        for box in parts:
            _copy(box, stretch, position // itemsize, into)
    return made


def _copy(box: Box, stretch: memoryview, begin: int, into: memoryview) -> None:
    """All of a box that lies in ``stretch``, which begins with the element ``begin`` of the storage."""
    end = begin + len(stretch)
    if not box.dims:
        if begin <= box.stored < end:
            into[box.made] = stretch[box.stored - begin]
        return
    line = max(range(len(box.dims)), key=lambda i: box.dims[i][0])
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
        low = max(0, -((stored - begin) // step))  # the first that is not before the stretch
        high = min(size, -((stored - end) // step))
        for i in range(low, high, MAX_LINE):
            stop = min(i + MAX_LINE, high)
            source, target = stored - begin + i * step, made + i * pace
            count = stop - i - 1
            into[target : target + count * pace + 1 : pace] = stretch[source : source + count * step + 1 : step]


def _repeat(element: memoryview, into: memoryview) -> None:
    one, format_ = bytes(element), _FORMATS[element.itemsize]
    for i in range(0, len(into), MAX_LINE):
        line = into[i : i + MAX_LINE]
        line[:] = memoryview(one * len(line)).cast(format_)
