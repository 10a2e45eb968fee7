"""The CRC32 of bytes that were summed in pieces, perhaps by several processes.

A CRC32 is a polynomial modulo ``_POLYNOMIAL``. To append n bytes is to multiply it by x to the power 8n.
"""

from __future__ import annotations

from functools import lru_cache

_POLYNOMIAL = 0xEDB88320
_ONE, _X = 1 << 31, 1 << 30  # the highest bit is the coefficient of x to the power 0


def combined(first: int, second: int, second_size: int) -> int:
    """Return the CRC32 of bytes with the CRC32 ``first``, followed by ``second_size`` bytes with ``second``."""
    return _product(_shift(second_size), first) ^ second


@lru_cache(maxsize=4096)
def _shift(size: int) -> int:
    """Return x to the power ``8 * size``."""
    result, power, left = _ONE, _X, 8 * size
    while left:
        if left & 1:
            result = _product(power, result)
        power = _square(power)
        left >>= 1
    return result


@lru_cache(maxsize=64)
def _square(power: int) -> int:
    return _product(power, power)


def _product(one: int, other: int) -> int:
    product, bit = 0, _ONE
    while bit:
        if one & bit:
            product ^= other
        other = (other >> 1) ^ _POLYNOMIAL if other & 1 else other >> 1
        bit >>= 1
    return product
