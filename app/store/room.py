"""Room: the disk space that uploads may still take, and the reserve for work that frees space.

Uploads are refused when they would leave too little space for the catalog or would touch the reserve. Work that frees
space may use the last byte: see ``freeing``.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeVar

from ..errors import StorageFull
from .failures import translated
from .reserve import Reserve

_log = logging.getLogger("stateroom.room")

T = TypeVar("T")

LARGEST_RESERVE = 64_000_000
SHARE = 10
"""Default size of the reserve: 1/SHARE of the device, at most LARGEST_RESERVE bytes."""

_LARGEST_MARGIN = 8_000_000


@dataclass(frozen=True, slots=True)
class Free:
    """Free space of one device: the free bytes, and the part of them that uploads may take."""

    nbytes: int
    for_uploads: int


class Promise:
    """Room promised to one upload: its bytes that are still to come."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.is_over = False

    def kept(self, nbytes: int) -> None:
        """Record that ``nbytes`` of them have arrived."""
        self.nbytes = max(0, self.nbytes - nbytes)


class Room:
    """The space on the devices of ``folders``. The ``reserve`` is on the first device. Safe for several threads.

    An upload may need its space on each of these devices, because it can be copied from one to another. ``size`` is the
    size of the reserve (None: chosen by the device's size, 0: none). Devices without the reserve's file keep as many
    bytes free.
    """

    def __init__(self, *folders: Path, reserve: Path | None = None, size: int | None = 0) -> None:
        self._folders = folders
        self._size = size
        self._reserve = None if reserve is None else Reserve(reserve, self._reserved(folders[0]))
        self._devices: tuple[int, ...] | None = None
        self._promises: set[Promise] = set()
        self._lock = Lock()

    @property
    def reserve_held(self) -> int:
        return 0 if self._reserve is None else self._reserve.held

    def free(self) -> list[Free]:
        """The free space of each folder's device, in the order of the folders. Raises StoreError."""
        return [self._free(number) for number in range(len(self._folders))]

    def refusal(self) -> str | None:
        """The reason why uploads are refused now, or None. Raises StoreError."""
        try:
            self.check(0)
        except StorageFull as error:
            return error.detail
        return None

    def check(self, nbytes: int) -> None:
        """Raise StorageFull unless there is room for ``nbytes`` more and for all promises; for 0, unless there is any
        room.
        """
        with self._lock:
            self._check(nbytes)

    @asynccontextmanager
    async def promised(self, nbytes: int) -> AsyncIterator[Promise]:
        """Keep room for an upload of ``nbytes`` inside the block. Raises StorageFull."""
        promise = Promise(nbytes)
        try:
            await asyncio.to_thread(self._promise, promise)
            yield promise
        finally:
            promise.is_over = True  # for a thread that is still adding the promise
            self._promises.discard(promise)

    def _promise(self, promise: Promise) -> None:
        with self._lock:
            self._check(promise.nbytes)
            self._promises.add(promise)
            if promise.is_over:
                self._promises.discard(promise)

    @contextmanager
    def growing(self, nbytes: int) -> Iterator[None]:
        """Guard a write of ``nbytes`` of an upload. Raises StorageFull if the write would need the reserve. An OSError
        of the block passes through.
        """
        if self._reserve is None:
            yield
            return
        with self._reserve.left_alone():
            left = min(self._free(number).for_uploads for number in self._distinct())
            if left < nbytes or self._reserve.held < self._reserve.size:
                raise StorageFull(f"the disk has no room left for the upload: {_left(left)}")
            yield

    def freeing(self, work: Callable[[], T]) -> T:
        """Run ``work``, which frees room, and return its result. It may use the reserve, and runs twice if that helps.

        Raises what ``work`` raises.
        """
        if self._reserve is not None and self._free(0).for_uploads < self._margin(0):
            self._release()
        try:
            return work()
        except StorageFull:
            if not self._release():
                raise
            return work()

    def make_reserve(self, *, anew: bool = False) -> None:
        """Make the reserve whole, if the disk has room for it and for uploads. Otherwise log a warning.

        ``anew`` makes it even if it looks whole, since a copy of its file may be full of holes, and its size may
        change. Use ``anew`` only while no other process uses the data dir.
        """
        reserve = self._reserve
        if reserve is None or (reserve.held == reserve.size and not anew):
            return
        with translated("creating the reserve"):
            is_made = self._free(0).for_uploads >= self._margin(0) and reserve.make()
        if not is_made:
            size = f"{reserve.size:,}"
            _log.warning("the disk has no room for the reserve of %s bytes; uploads are refused until it has", size)

    def _release(self) -> bool:
        with translated("releasing the reserve"):
            is_released = self._reserve is not None and self._reserve.release()
        if is_released:
            _log.warning(
                "the disk is full: the reserve is released, and uploads are refused until there is room for it again"
            )
        return is_released

    def _check(self, nbytes: int) -> None:
        wanted = nbytes and nbytes + sum(promise.nbytes for promise in tuple(self._promises))
        for number in self._distinct():
            left = self._free(number).for_uploads - self._margin(number)
            if left < wanted:
                what = f"there is no room left for the {nbytes:,} bytes of the upload" if nbytes else "the disk is full"
                raise StorageFull(f"{what}: {_left(left)}")
        self.make_reserve()

    def _distinct(self) -> tuple[int, ...]:
        """The numbers of the folders, one folder for each device."""
        if self._devices is None:
            with translated("checking the free space"):
                first = {folder.stat().st_dev: number for number, folder in reversed([*enumerate(self._folders)])}
            self._devices = tuple(sorted(first.values()))
        return self._devices

    def _free(self, number: int) -> Free:
        with translated("checking the free space"):
            device = os.statvfs(self._folders[number])
            free = device.f_bavail * device.f_frsize
            reserve = self._reserve
            if reserve is None:
                return Free(free, free - self._reserved(self._folders[number]))
            if self._is_beside_the_reserve(number):
                return Free(free, free - (reserve.size - reserve.held))
            return Free(free, free - self._reserved(self._folders[number]))

    def _is_beside_the_reserve(self, number: int) -> bool:
        return number == 0 or self._folders[number].stat().st_dev == self._folders[0].stat().st_dev

    def _margin(self, number: int) -> int:
        """Bytes that uploads leave free for the catalog, because each upload ends in a commit to it."""
        return min(_LARGEST_MARGIN, self._reserved(self._folders[number]) // 4)

    def _reserved(self, folder: Path) -> int:
        if self._size is not None:
            return self._size
        with translated("checking the free space"):
            device = os.statvfs(folder)
        return min(LARGEST_RESERVE, device.f_blocks * device.f_frsize // SHARE)


def _left(nbytes: int) -> str:
    return f"{max(0, nbytes):,} bytes are free for uploads"
