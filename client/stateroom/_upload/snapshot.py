"""Snapshots of tensors' memory, copied into memory that is reused: touching fresh memory takes ten times as long as the
copy.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .._threads import side_by_side
from .pickled import Pickled, memory_of

ALIGNMENT = 64
HEADROOM = 8
"""A buffer is an eighth larger than asked for, as checkpoints grow a little; untouched memory costs nothing."""

THREADS = 4
"""Threads for the copy. torch's own threads wait for one another after each tensor: if another process keeps a core
busy, as DataLoader workers do, their copy takes twenty times as long.
"""

WIPE_ON_FORK = 18
"""Linux's MADV_WIPEONFORK: a forked process, such as a DataLoader worker, gets none of the memory. Otherwise the first
copy after each fork would pay for every page anew.
"""


HUGE_PAGES = 14
"""Linux's MADV_HUGEPAGE: the first snapshot, which touches all of the memory, takes less than half the time."""


class Buffer:
    """Memory for one snapshot at a time; with ``pinned``, a GPU can write to it directly."""

    def __init__(self, torch: Any, size: int, *, pinned: bool) -> None:
        self.pinned = pinned
        if pinned:
            self.tensor = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self.view = memory_of(self.tensor.untyped_storage())
        else:
            memory = _private_memory(size + size // HEADROOM)
            self.tensor = torch.frombuffer(memory, dtype=torch.uint8)
            self.view = memoryview(memory)


class Buffers:
    """The free buffers. The caller ensures that only one thread at a time uses them."""

    def __init__(self) -> None:
        self._free: list[Buffer] = []

    def take(self, torch: Any, size: int, *, pinned: bool) -> Buffer:
        """Return a buffer of at least ``size`` bytes. If all free ones are too small, they are freed for it."""
        fitting = [buffer for buffer in self._free if buffer.pinned == pinned and len(buffer.view) >= size]
        if not fitting:
            self._free.clear()
            return Buffer(torch, size, pinned=pinned)
        best = min(fitting, key=lambda buffer: len(buffer.view))
        self._free.remove(best)
        return best

    def give(self, buffer: Buffer) -> None:
        self._free.append(buffer)

    def clear(self) -> None:
        self._free.clear()


def size_of(pickled: Pickled) -> int:
    """Return the size of a snapshot in bytes."""
    return sum(_aligned(storage.nbytes()) for storage in _solid(pickled)) or ALIGNMENT


def is_pinned(pickled: Pickled) -> bool:
    return any(storage.device.type == "cuda" for storage in _solid(pickled))


def snapshot(pickled: Pickled, buffer: Buffer) -> list[memoryview]:
    """Copy all storages into the buffer and return their bytes: the object may change, and go."""
    torch = pickled.torch
    copies: list[memoryview] = []
    moves: list[tuple[int, int, int]] = []
    start = 0
    for storage in pickled.storages.values():
        size = 0 if storage.device.type == "meta" else storage.nbytes()
        if size and storage.device.type == "cpu":
            moves.append((buffer.tensor.data_ptr() + start, storage.data_ptr(), size))
        elif size:
            source = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            buffer.tensor[start : start + size].copy_(source, non_blocking=storage.device.type == "cuda")
        copies.append(buffer.view[start : start + size])
        start += _aligned(size)
    side_by_side(lambda move: ctypes.memmove(*move), moves, THREADS)
    for device in {storage.device for storage in pickled.storages.values() if storage.device.type == "cuda"}:
        torch.cuda.synchronize(device)
    pickled.release()
    return copies


def _solid(pickled: Pickled) -> Sequence[Any]:
    return [storage for storage in pickled.storages.values() if storage.device.type != "meta"]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _private_memory(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in (WIPE_ON_FORK, HUGE_PAGES):
        with suppress(AttributeError, OSError):  # another system, or an old Linux
            memory.madvise(advice)
    return memory
