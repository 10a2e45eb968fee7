"""Strides of contiguous elements."""

from collections.abc import Sequence
from math import prod


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of contiguous elements."""
    return tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))


def is_c_order(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Tell whether a view's elements lie one after another, in C order."""
    pairs = zip(shape, stride, strides_of(shape), strict=True)
    return all(size == 1 or step == expected for size, step, expected in pairs)


def is_run(sizes: Sequence[int], shape: Sequence[int]) -> bool:
    """Tell whether a box of a contiguous tensor is one run of its elements: whole below its first long dimension."""
    first = next((dim for dim, size in enumerate(sizes) if size != 1), len(sizes))
    return all(size == whole for size, whole in zip(sizes[first + 1 :], shape[first + 1 :], strict=True))
