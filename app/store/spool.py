"""The spool: uploads as they arrive, before anybody knows whether they are worth keeping.

<data-dir>/spool/<name>     one file an upload, named like the pack it may become

Whoever writes a file holds a lock on it, which ends with its process: what is not locked is left over.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

from ..concurrency.fair_pool import FairPool
from ..private import FILE
from ..values.digest import Digest
from .digests import Hasher
from .failures import translated
from .files import Buffer, make_folder, opened_folder, own_files
from .in_order import InOrder
from .keys import checked, is_new_name
from .open_file import OpenFile
from .room import Room

_WRITERS = 8
"""Uploads of one owner that wait for the disk at once."""


class SpoolFile(OpenFile):
    """One upload on disk, hashed while it is written: ``digest`` and ``sha256`` are of what was ``put`` there."""

    def __init__(self, path: Path, writers: Executor, hashers: Executor, room: Room) -> None:
        with translated("making a spool file"):
            super().__init__(path, _created(path), 0, room)
        self._writing = InOrder(writers)
        self._hashing = (InOrder(hashers), InOrder(hashers))
        self._sha256 = hashlib.sha256()
        self._hasher = Hasher()

    @property
    def digest(self) -> Digest:
        return self._hasher.digest

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def put(self, data: Buffer) -> tuple[Future[None], ...]:
        """Begin to append ``data``, a part of the upload, whose hashing and writing run side by side, each in order.

        Nobody may touch ``data`` before all of these are done. A failure stands for all that is put after it, too.
        """
        return (
            self._writing.submit(lambda: self.append(data)),
            self._hashing[0].submit(lambda: self._sha256.update(data)),
            self._hashing[1].submit(lambda: self._hasher.update(data)),
        )


def _created(path: Path) -> int:
    """A new file, open and locked."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # it was taken for a left over one before it was locked


def left_behind(folder: Path, *, remove: bool) -> Iterator[tuple[str, int]]:
    """Names and sizes of the files in a spool's ``folder`` whose process has ended; removed before they are told, if
    ``remove``. Any process may ask, beside those that write there. What no server has written is left alone.
    """
    with translated("looking through the spool"):
        if not folder.is_dir():
            return
        with opened_folder(folder) as fd:
            for name in own_files(fd, is_new_name):
                if (size := _if_left(fd, name, remove=remove)) is not None:
                    yield name, size


def _if_left(folder: int, name: str, *, remove: bool) -> int | None:
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = os.fstat(fd).st_size
            if remove:
                os.unlink(name, dir_fd=folder)
            return size
        finally:
            os.close(fd)
    except (BlockingIOError, FileNotFoundError):
        return None


class Spool:
    """The folder that uploads arrive in; it is made if it is not there. Needs ``close``.

    Nothing in it is made durable: an upload that is worth keeping becomes a pack, and the store sees to that. So one
    that holds nothing new never waits for the disk. Without ``room`` they may take all there is.
    """

    def __init__(self, folder: Path, room: Room | None = None) -> None:
        self.room = room or Room(folder)
        self._folder = folder
        # Pools of their own: these tasks wait for no other, and no hash waits for a disk.
        self._writers = FairPool(_WRITERS, "spool-write")
        self._hashers = FairPool(os.cpu_count() or 1, "spool-hash")
        with translated("making the spool"):
            make_folder(folder, durable=False)

    def create(self, name: str) -> SpoolFile:
        """A new empty file. Names are made of [a-z0-9]; one that is taken raises StoreError."""
        return SpoolFile(self._folder / checked(name), self._writers, self._hashers, self.room)

    def clear(self) -> int:
        """Remove what a crash left. Tells how many files that were."""
        return sum(1 for _ in left_behind(self._folder, remove=True))

    def close(self) -> None:
        self._writers.shutdown()
        self._hashers.shutdown()
