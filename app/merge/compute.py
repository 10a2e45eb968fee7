"""Merging of elements in a child process, by which the result is defined.

Elements are converted to float32, or to float64 for a result of that dtype; so are the factors of a recipe. Each
product and each sum is rounded to it, in the order of the sources, and the result is rounded to its dtype, to nearest,
ties to even. Complex numbers are pairs of real ones.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..inside.compute import answer as answer_inside
from ..inside.elements import real
from .jobs import Part, decode

BLOCK = 64 * 1024
"""Elements that are worked on at a time: they fit into a core's cache."""

Floating = NDArray[np.floating]


def answer(head: bytes, messages: Iterator[memoryview]) -> bytes:
    """Do a job of ``jobs``, or of ``inside``, and return its answer."""
    parts = decode(head)
    if parts is None:
        return answer_inside(head, messages)
    with np.errstate(all="ignore"):
        return b"".join(map(_rounded, _merged(parts, messages), parts))


def _merged(parts: list[Part], messages: Iterator[memoryview]) -> list[Floating]:
    results = [np.zeros(part.count, _computed_in(part)) for part in parts]
    for source in range(len(parts[0].dtypes)):
        for part, result in zip(parts, results, strict=True):
            _add(result, part, source, messages)
    for part, result in zip(parts, results, strict=True):
        if part.recipe.divisor != 1:
            np.divide(result, result.dtype.type(part.recipe.divisor), out=result)
    return results


def _computed_in(part: Part) -> np.dtype[np.floating]:
    return np.dtype(np.float64 if part.to.itemsize == 8 else np.float32)


def _add(result: Floating, part: Part, source: int, messages: Iterator[memoryview]) -> None:
    """Add all elements of one source."""
    dtype, at = part.dtypes[source], 0
    keep, add = map(result.dtype.type, part.recipe.steps[source])
    size = BLOCK * dtype.itemsize
    while at < part.count:
        message = next(messages)
        for start in range(0, len(message), size):
            elements = real(message[start : start + size], dtype).astype(result.dtype)
            into = result[at : at + elements.size]
            at += elements.size
            if add != 1:
                elements *= add
            if not source:
                into[:] = elements
                continue
            if keep != 1:
                into *= keep
            into += elements


def _rounded(result: Floating, part: Part) -> bytes:
    return _bfloat16(result) if part.to.name == "bfloat16" else result.astype(_CODES[part.to.name]).tobytes()


_CODES = {"float64": "<f8", "float32": "<f4", "float16": "<f2"}


def _bfloat16(numbers: Floating) -> bytes:
    bits = numbers.astype("<f4").view("<u4")
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    return np.where(np.isnan(numbers), np.uint32(0x7FC0), rounded).astype("<u2").tobytes()
