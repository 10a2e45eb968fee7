"""The memory of the machine: how fast it is touched for the first time and copied, and how it is warmed."""

import time
from contextlib import closing
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path

import torch

HUGE_PAGES, POPULATE_WRITE = 14, 23
"""Linux's MADV_HUGEPAGE and MADV_POPULATE_WRITE (since 5.14)."""


def warm(nbytes: int) -> None:
    """Touch ``nbytes``, or half of what is available, as huge pages, and free them. Pages of both sizes are cut from
    freed huge pages, while freed small ones serve only small ones: who asks for huge pages would get cold memory.
    """
    touch(min(nbytes, available() // 2), huge=True)


def touch(nbytes: int, *, huge: bool) -> None:
    """Touch ``nbytes`` of fresh memory, and free them."""
    with closing(mmap(-1, nbytes, flags=MAP_PRIVATE | MAP_ANONYMOUS)) as memory:
        if huge:
            memory.madvise(HUGE_PAGES)
        memory.madvise(POPULATE_WRITE)


def available() -> int:
    """Bytes of memory that programs can still get (MemAvailable)."""
    return _of("MemAvailable")


def total() -> int:
    return _of("MemTotal")


def touch_rate(nbytes: int, *, huge: bool) -> float:
    """GB/s at which fresh memory is touched."""
    started = time.perf_counter()
    touch(nbytes, huge=huge)
    return nbytes / (time.perf_counter() - started) / 1e9


def copy_rate(nbytes: int, threads: int) -> float:
    """GB/s at which ``threads`` copy memory that has been touched: as many are read, and as many written."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source = torch.ones(nbytes, dtype=torch.uint8)
        target = torch.zeros(nbytes, dtype=torch.uint8)
        started = time.perf_counter()
        target.copy_(source)
        return nbytes / (time.perf_counter() - started) / 1e9
    finally:
        torch.set_num_threads(before)


def _of(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise LookupError(f"/proc/meminfo has no {name}")
