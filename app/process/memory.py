"""How this process treats memory: glibc keeps what the next chunk of an upload will ask for again, and Python looks
for cyclic garbage less often.
"""

import ctypes
import gc
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
THRESHOLD = 32 * 1024 * 1024
"""Bytes, the most glibc takes. What an upload arrives in is freed some megabytes at a time; at the default of 128 KiB
each of its pieces is mapped, faulted in page by page, and unmapped. A 512 MB upload: 35,000 page faults with the
default, 30,000 at 4 MiB, 4,000 at this.
"""


YOUNG_OBJECTS = 50_000
"""Containers made before Python looks for garbage among them. Parsing a pickle makes 20 a tensor and no garbage: at
the default of 700, looking took a third of planning a download of 10,000 tensors.
"""

SELDOM = 4, 250
"""Looks until what they left is looked at again, and such looks until everything is. Nobody has a turn meanwhile: among
the million containers of a large manifest that takes 100 ms, among 200,000 of them 30.
"""


def collect_seldom() -> None:
    """Call when start-up is over: what it made stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *SELDOM)


def keep_freed_memory() -> bool:
    """Serve blocks up to THRESHOLD from the heap, and keep twice as much of it when it is free.

    False where the C library is not glibc, which changes nothing but speed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    return bool(mallopt(M_MMAP_THRESHOLD, THRESHOLD) and mallopt(M_TRIM_THRESHOLD, 2 * THRESHOLD))
