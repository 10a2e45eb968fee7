"""The memory of tensors, as bytes to write to."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

HUGE = 4 * 1024 * 1024
"""Bytes from which on huge pages are worth asking for."""

_MADV_HUGEPAGE = 14
_madvise = None
if sys.platform == "linux":
    _madvise = ctypes.CDLL(None).madvise
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def memory_at(address: int, size: int) -> memoryview:
    """``size`` bytes from an address on. Nothing keeps them alive but whose they are."""
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


def address_of(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def expect(storage: Any) -> memoryview:
    """The bytes of a storage that has just been made and not been touched: the kernel is asked for huge pages there,
    because to touch fresh memory page by page costs more than to receive what goes into it.
    """
    address, size = storage.data_ptr(), storage.nbytes()
    if _madvise is not None and size >= HUGE:
        start = address - address % mmap.PAGESIZE
        _madvise(start, address + size - start, _MADV_HUGEPAGE)  # advice: that it was not taken is no error
    return memory_at(address, size)
