"""The memory of tensors, as writable bytes."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

HUGE = 4 * 1024 * 1024
"""Size of a storage, in bytes, from which huge pages are worth asking for."""

_MADV_HUGEPAGE = 14
_madvise = None
if sys.platform == "linux":
    _madvise = ctypes.CDLL(None).madvise
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def memory_at(address: int, size: int) -> memoryview:
    """Return ``size`` bytes from an address on. Only their owner keeps them alive."""
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


def address_of(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def expect(storage: Any) -> memoryview:
    """Return the bytes of a newly allocated, untouched storage, after asking the kernel for huge pages there: touching
    fresh memory page by page costs more than receiving its bytes.
    """
    address, size = storage.data_ptr(), storage.nbytes()
    if _madvise is not None and size >= HUGE:
        start = address - address % mmap.PAGESIZE
        _madvise(start, address + size - start, _MADV_HUGEPAGE)  # only advice: a failure is no error
    return memory_at(address, size)
