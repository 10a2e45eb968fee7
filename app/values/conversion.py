"""Conversion of stored elements while they are sent: reordered, byte-swapped, cast."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from .dtype import DType
from .span import Span

ByteOrder = Literal["little", "big"]

Dims = tuple[tuple[int, int], ...]
"""Pairs of size and stride, outermost first; strides count elements."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """The elements of a view, in C order, converted to ``to``.

    ``source`` is the bytes of the uploaded file that the view reaches, from its first element on: whole elements of
    ``dtype``. ``dims`` are the view's, merged as far as possible: a contiguous view has a single dimension of stride 1.
    ``flips`` are the bytes of a little-endian element whose top bit is inverted: the signs that a negative or conjugate
    view leaves unresolved.
    """

    source: Span
    dtype: DType
    to: DType
    dims: Dims
    byteorder: ByteOrder = "little"
    to_byteorder: ByteOrder = "little"
    flips: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(size for size, _ in self.dims)

    @property
    def size(self) -> int:
        """Bytes of output."""
        return self.count * self.to.itemsize

    @property
    def is_contiguous(self) -> bool:
        return len(self.dims) == 1 and self.dims[0][1] == 1

    @property
    def changes_nothing(self) -> bool:
        """Tell whether the output equals ``source``."""
        same_order = self.byteorder == self.to_byteorder or self.dtype.itemsize == 1
        return self.is_contiguous and self.dtype == self.to and same_order and not self.flips


def merged(shape: tuple[int, ...], stride: tuple[int, ...]) -> Dims:
    """Dimensions of a nonempty view: without dimensions of size 1, and with adjoining contiguous ones merged."""
    dims: list[tuple[int, int]] = []
    for size, step in zip(shape, stride, strict=True):
        if size == 1:
            continue
        if dims and dims[-1][1] == size * step:
            dims[-1] = (dims[-1][0] * size, step)
        else:
            dims.append((size, step))
    return tuple(dims) or ((1, 1),)
