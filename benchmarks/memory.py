"""The memory of the machine: how fast it is touched for the first time and copied, and how it is warmed."""

import time
from mmap import MAP_ANONYMOUS, MAP_POPULATE, MAP_PRIVATE, mmap
from pathlib import Path

import torch


def warm(nbytes: int) -> None:
    """Touch ``nbytes``, or half of what is available, and free them."""
    mmap(-1, min(nbytes, available() // 2), flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE).close()


def available() -> int:
    """Bytes of memory that programs can still get (MemAvailable)."""
    return _of("MemAvailable")


def total() -> int:
    return _of("MemTotal")


def touch_rate(nbytes: int) -> float:
    """GB/s at which memory is touched for the first time."""
    started = time.perf_counter()
    warm(nbytes)
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
