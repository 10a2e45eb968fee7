"""The reserve: disk space that uploads never get, kept for work that frees space.

The reserve is an allocated file beside the database. When the disk is full, a deletion or a sweep gives its bytes back
to the file system. When there is room again, it is made whole. While it is not whole, uploads are refused.

Each write of an upload holds a shared lock on the reserve, and a release waits for running writes to end. Otherwise
running uploads would take the released space.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..private import FILE
from .files import write_all

_CANNOT_ALLOCATE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})

_ZEROS = bytes(1024 * 1024)

WRITES_SECONDS = 2.0
"""Longest wait of a release for running writes, in seconds. Each write is a few MiB."""

MAKING_SECONDS = 0.5


class Reserve:
    """A reserve of ``size`` bytes in the file at ``path``. Raises OSError. Safe for several processes and threads."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size

    @property
    def held(self) -> int:
        """Bytes that the reserve holds now."""
        try:
            return min(self.path.stat().st_size, self.size)
        except FileNotFoundError:
            return 0

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """Keep the reserve from being released or made inside the block."""
        fd = self._open(os.O_RDONLY)
        if fd is None:
            yield
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    def release(self) -> bool:
        """Give the reserve's bytes back to the file system; False if it holds none."""
        fd = self._open(os.O_RDWR)
        if fd is None:
            return False
        try:
            held = os.fstat(fd).st_size
            if held == 0:
                return False
            os.ftruncate(fd, held - 1)  # no longer whole: from here on no upload begins a write
            _lock(fd, WRITES_SECONDS)
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)
        return True

    def make(self) -> bool:
        """Make the reserve whole, at its full size; False if the disk has no room for it or it is in use."""
        if self.size == 0:
            self.path.unlink(missing_ok=True)
            return True
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE)
        try:
            if not _lock(fd, MAKING_SECONDS):  # it is in use, or another process makes it
                return False
            _allocate(fd, self.size)
            os.ftruncate(fd, self.size)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(fd, 0)
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                return False
            raise
        finally:
            os.close(fd)
        return True

    def _open(self, flags: int) -> int | None:
        try:
            return os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None


def _lock(fd: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.005)
        else:
            return True


def _allocate(fd: int, size: int) -> None:
    """Allocate ``size`` bytes on disk, also for holes in the file."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_ALLOCATE:
            raise
        os.lseek(fd, 0, os.SEEK_SET)
        for start in range(0, size, len(_ZEROS)):
            write_all(fd, _ZEROS[: size - start])
