"""Memory settings of this process: glibc keeps freed memory for the next chunk of an upload, and Python collects cyclic
garbage less often.
"""

import ctypes
import gc
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
THRESHOLD = 32 * 1024 * 1024
"""Bytes, the most glibc takes. Upload buffers are freed some megabytes at a time; at the default of 128 KiB each buffer
is mapped, faulted in page by page, and unmapped. Page faults of a 512 MB upload: 35,000 at the default, 30,000 at
4 MiB, 4,000 at this value.
"""


YOUNG_OBJECTS = 50_000
"""New containers before Python collects garbage. Parsing a pickle makes 20 containers a tensor and no garbage: at the
default of 700, collections took a third of planning a download of 10,000 tensors.
"""

SELDOM = 4, 250
"""Collections of new containers until their survivors are collected, and such collections until everything is. A full
one blocks all threads: 100 ms for the million containers of a large manifest, 30 ms for 200,000.
"""


def collect_seldom() -> None:
    """Exempt all objects of the start-up from garbage collection. Call when start-up is over."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *SELDOM)


def keep_freed_memory() -> bool:
    """Serve blocks up to THRESHOLD from the heap, and keep up to twice THRESHOLD of free heap.

    Return False if the C library is not glibc, which changes nothing but speed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    return bool(mallopt(M_MMAP_THRESHOLD, THRESHOLD) and mallopt(M_TRIM_THRESHOLD, 2 * THRESHOLD))
