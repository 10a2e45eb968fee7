"""Elements of tensors as numbers in memory. Only the modules that a child process runs import numpy."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..values.dtype import DType

Floats = NDArray[np.float64]
Numbers = NDArray[np.generic]
"""Real numbers of any dtype that numpy has."""


def _widened(code: str) -> Callable[[memoryview], Numbers]:
    return lambda data: np.frombuffer(data, code)


def _bfloat16(data: memoryview) -> Numbers:
    return (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def _looked_up(table: Numbers) -> Callable[[memoryview], Numbers]:
    return lambda data: table[np.frombuffer(data, np.uint8)]


def _float8(exponent_bits: int, bias: int, *, is_finite: bool, is_unsigned_zero: bool) -> Numbers:
    """The values of all patterns of a sign, an exponent and a mantissa in a byte.

    ``is_finite``: there is no infinity, and only the largest pattern is NaN. ``is_unsigned_zero``: the pattern of
    negative zero is NaN instead, and no other pattern is.
    """
    mantissa_bits = 7 - exponent_bits
    values = []
    for pattern in range(256):
        sign = -1.0 if pattern & 0x80 else 1.0
        exponent, mantissa = (pattern & 0x7F) >> mantissa_bits, pattern & ((1 << mantissa_bits) - 1)
        if is_unsigned_zero:
            is_nan, is_infinite = pattern == 0x80, False
        elif is_finite:
            is_nan, is_infinite = pattern & 0x7F == 0x7F, False
        else:
            is_special = exponent == (1 << exponent_bits) - 1
            is_nan, is_infinite = is_special and mantissa > 0, is_special and not mantissa
        part = mantissa / (1 << mantissa_bits)
        value = (1 + part) * 2.0 ** (exponent - bias) if exponent else part * 2.0 ** (1 - bias)
        values.append(float("nan") if is_nan else sign * (float("inf") if is_infinite else value))
    return np.array(values, np.float32)


_E8M0 = np.array([2.0 ** (pattern - 127) for pattern in range(255)] + [float("nan")], np.float32)

_REAL: dict[str, Callable[[memoryview], Numbers]] = {
    "float64": _widened("<f8"),
    "float32": _widened("<f4"),
    "float16": lambda data: np.frombuffer(data, "<f2").astype(np.float32),
    "bfloat16": _bfloat16,
    "int64": _widened("<i8"),
    "int32": _widened("<i4"),
    "int16": _widened("<i2"),
    "int8": _widened("<i1"),
    "uint8": _widened("<u1"),
    "uint16": _widened("<u2"),
    "uint32": _widened("<u4"),
    "uint64": _widened("<u8"),
    "bool": lambda data: np.frombuffer(data, np.uint8) != 0,
    "float8_e4m3fn": _looked_up(_float8(4, 7, is_finite=True, is_unsigned_zero=False)),
    "float8_e5m2": _looked_up(_float8(5, 15, is_finite=False, is_unsigned_zero=False)),
    "float8_e4m3fnuz": _looked_up(_float8(4, 8, is_finite=True, is_unsigned_zero=True)),
    "float8_e5m2fnuz": _looked_up(_float8(5, 16, is_finite=False, is_unsigned_zero=True)),
    "float8_e8m0fnu": _looked_up(_E8M0),
}

_PARTS = {"complex128": "<f8", "complex64": "<f4", "complex32": "<f2"}


def real(data: memoryview, dtype: DType) -> Numbers:
    """The little-endian elements of a real dtype, in a dtype of numpy that has all their values."""
    return _REAL[dtype.name](data)


def patterns(data: memoryview, dtype: DType) -> NDArray[np.unsignedinteger]:
    """The bits of elements of one or two bytes, as numbers."""
    return np.frombuffer(data, f"<u{dtype.itemsize}")


def complex_parts(data: memoryview, dtype: DType) -> Floats:
    """The little-endian elements of a complex dtype: one row each, of the real and the imaginary part."""
    return np.frombuffer(data, _PARTS[dtype.name]).astype(np.float64).reshape(-1, 2)


def is_complex(dtype: DType) -> bool:
    return dtype.name in _PARTS
