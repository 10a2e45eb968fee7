"""Windows: parts of a file mapped into memory, with every page already loaded.

A page fault at a later access would wait for the disk, and would report a disk error as SIGBUS, which kills the
process. So MADV_POPULATE_READ faults the pages in here and returns errors. If it is not supported or not worth it, the
bytes are read into separate memory.
"""

import ctypes
import errno
import mmap
import os
import sys

from ..errors import DamagedBlob
from ..values.span import Span

SMALL = 64 * 1024
"""Largest span, in bytes, for which reading is cheaper than mapping."""

_MADV_POPULATE_READ = 22  # Linux 5.14; the mmap module has no name for it yet
_REFUSED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP})

# mmap.madvise holds the GIL while the disk reads: 16 ms per window were seen. A call through ctypes releases the GIL.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def read_window(fd: int, span: Span) -> memoryview:
    """The bytes of ``span`` of an open file, read-only and in memory. The mapping ends with its last view.

    Raises DamagedBlob if the file ends before the span does, OSError if the file cannot be read.
    """
    if span.length <= SMALL:
        return _read(fd, span)
    if os.fstat(fd).st_size < span.end:
        raise DamagedBlob(f"stored bytes end before offset {span.end}")
    first = span.start - span.start % mmap.ALLOCATIONGRANULARITY
    # Private and writable only so that ctypes can get its address; views are read-only, so no page is copied.
    window = mmap.mmap(fd, span.end - first, access=mmap.ACCESS_COPY, offset=first)
    if not _populate(window):
        window.close()
        return _read(fd, span)
    return memoryview(window).toreadonly()[span.start - first :]


def _populate(window: mmap.mmap) -> bool:
    """Fault in all pages; False if this kernel or file system does not support MADV_POPULATE_READ."""
    if sys.platform != "linux":
        return False
    address = ctypes.addressof(ctypes.c_char.from_buffer(window))
    if _libc.madvise(address, len(window), _MADV_POPULATE_READ) == 0:
        return True
    number = ctypes.get_errno()
    if number in _REFUSED:
        return False
    raise OSError(number, os.strerror(number))


def _read(fd: int, span: Span) -> memoryview:
    data = os.pread(fd, span.length, span.start)
    while len(data) < span.length:
        more = os.pread(fd, span.length - len(data), span.start + len(data))
        if not more:
            raise DamagedBlob(f"stored bytes end before offset {span.end}")
        data += more
    return memoryview(data)
