"""Storages that are put together from chunks while they are sent: of tensors that were sharded by columns or both ways.

A made storage is read like a blob, block by block. A block of it is cut into boxes, each in one chunk, and a box is
copied from the blocks of the chunk's blob. Pure.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod

from ..values.digest import Digest
from ..values.dtype import DType
from ..values.span import Span
from ..values.strides import strides_of
from .gather import Box


@dataclass(frozen=True, slots=True)
class MadeChunk:
    """A box of a made storage: ``sizes`` elements from ``offsets`` on. They lie in a blob of ``length`` bytes, within
    its bytes ``span``, from the first element on; ``stride`` counts elements.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    stride: tuple[int, ...]
    digest: Digest
    span: Span
    length: int


@dataclass(frozen=True, slots=True)
class Made:
    """A storage made of ``chunks``: the elements of a tensor, in C order. Its ``name`` stands for its bytes, as a
    digest does: two of one name have the same bytes.
    """

    name: Digest
    itemsize: int
    shape: tuple[int, ...]
    chunks: tuple[MadeChunk, ...]

    def boxes(self, span: Span) -> Iterator[tuple[MadeChunk, Box]]:
        """Yield the boxes that bytes ``span``, which are whole elements, are made of, each with its chunk. A box is
        read from the first element of its chunk on, and written from the start of ``span`` on.
        """
        first, last = span.start // self.itemsize, span.end // self.itemsize
        strides = strides_of(self.shape)
        for region in _regions(self.shape, first, last):
            for chunk in self.chunks:
                box = _common(region, chunk, strides, first)
                if box is not None:
                    yield chunk, box


def made_of(dtype: DType, shape: tuple[int, ...], chunks: Sequence[MadeChunk]) -> Made:
    """Make a storage of the elements of a tensor."""
    recipe = [
        [one.offsets, one.sizes, one.stride, one.digest, one.span.start, one.span.end, one.length] for one in chunks
    ]
    text = json.dumps([dtype.itemsize, shape, recipe])
    name = Digest(f"made:{sha256(text.encode()).hexdigest()}")
    return Made(name, dtype.itemsize, shape, tuple(chunks))


_Region = tuple[tuple[int, int], ...]
"""Start and size of a box in each dimension."""


def _regions(shape: tuple[int, ...], first: int, last: int) -> Iterator[_Region]:
    """Cut elements ``[first, last)`` of a contiguous tensor into boxes, in C order."""
    if first >= last:
        return
    if not shape:
        yield ()
        return
    rest = shape[1:]
    inner = prod(rest)
    (i, skip), (end, extra) = divmod(first, inner), divmod(last, inner)
    if i == end:
        for below in _regions(rest, skip, extra):
            yield ((i, 1), *below)
        return
    if skip:
        for below in _regions(rest, skip, inner):
            yield ((i, 1), *below)
        i += 1
    if i < end:
        yield ((i, end - i), *((0, size) for size in rest))
    for below in _regions(rest, 0, extra):
        yield ((end, 1), *below)


def _common(region: _Region, chunk: MadeChunk, strides: tuple[int, ...], first: int) -> Box | None:
    """Return the part of a region that lies in a chunk. Neighbouring dimensions become one where they can."""
    stored, made = 0, -first
    dims: list[tuple[int, int, int]] = []
    for (start, size), offset, length, step, stride in zip(
        region, chunk.offsets, chunk.sizes, chunk.stride, strides, strict=True
    ):
        low, high = max(start, offset), min(start + size, offset + length)
        if low >= high:
            return None
        stored += (low - offset) * step
        made += low * stride
        count = high - low
        if count == 1:
            continue
        if dims and (dims[-1][1], dims[-1][2]) == (count * step, count * stride):
            dims[-1] = (dims[-1][0] * count, step, stride)
        else:
            dims.append((count, step, stride))
    return Box(made, stored, tuple(dims))
