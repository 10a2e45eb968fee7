"""The spool: the folder for uploads that arrive whole, before the server knows whether it has to keep them.

<data-dir>/spool/<name>     one file for each upload, named like the pack it may become, or for each commit of an upload
                            in parts: of such an upload, only what has to be parsed is here

The process that writes a file holds a lock on it. The lock ends with the process, so an unlocked file is a leftover.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..concurrency.fair_pool import FairPool
from ..private import FILE
from ..values.digest import Digest
from ..values.span import Span
from .digests import Hasher
from .failures import translated
from .files import Buffer, make_folder, opened_folder, own_files
from .in_order import InOrder
from .keys import checked, is_new_name, new_name
from .open_file import OpenFile
from .room import Room

_WRITERS = 8
"""Uploads of one owner that may wait for the disk at once."""


class SpoolFile(OpenFile):
    """One upload on disk, hashed while it is written: ``digest`` and ``sha256`` cover the bytes passed to ``put``.

    ``sha256`` is None unless the file was created ``with_sha256``: SHA-256 keeps one core busy, and limits an upload to
    what that core can hash.
    """

    def __init__(self, path: Path, writers: Executor, hashers: Executor, room: Room, *, with_sha256: bool) -> None:
        with translated("creating a spool file"):
            super().__init__(path, _created(path), 0, room)
        self._writing = InOrder(writers)
        self._hasher = Hasher()
        self._sha256 = hashlib.sha256() if with_sha256 else None
        hashes = (self._hasher,) if self._sha256 is None else (self._hasher, self._sha256)
        self._hashing = [(InOrder(hashers), each.update) for each in hashes]

    @property
    def digest(self) -> Digest:
        return self._hasher.digest

    @property
    def sha256(self) -> str | None:
        return None if self._sha256 is None else self._sha256.hexdigest()

    def put(self, data: Buffer) -> tuple[Future[None], ...]:
        """Begin to append ``data``, a part of the upload. Hashing and writing run side by side, each in order.

        Leave ``data`` unchanged until all futures are done. After a failure, all later calls fail too.
        """
        return (
            self._writing.submit(lambda: self.append(data)),
            *(queue.submit(partial(update, data)) for queue, update in self._hashing),
        )

    def put_whole(self, data: Buffer) -> Future[None]:
        """Begin to append ``data``, a whole upload, as one call: for a small one, handing it to several threads takes
        longer than the work. Nothing else may be ``put``.
        """

        def put() -> None:
            self.append(data)
            for _, update in self._hashing:
                update(data)

        return self._writing.submit(put)


class SparseFile(OpenFile):
    """A file of ``size`` bytes that begins as one hole, for an upload of which only some bytes are needed here."""

    def __init__(self, path: Path, size: int, room: Room) -> None:
        with translated("creating a spool file"):
            super().__init__(path, _created(path), size, room)
            os.ftruncate(self._fd, size)
            os.lseek(self._fd, size, os.SEEK_SET)

    def write(self, spans: Sequence[Span], data: Buffer) -> None:
        """Write ``data`` to ``spans``, one span after another."""
        view, start = memoryview(data), 0
        with translated("writing an upload"), self._room.growing(len(view)):
            for span in spans:
                position, end = span.start, start + span.length
                while start < end:
                    count = os.pwrite(self._fd, view[start:end], position)
                    start, position = start + count, position + count


def _created(path: Path) -> int:
    """Make a new file, open it and lock it; return its file descriptor."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # another process removed it as a leftover before it was locked


def left_behind(folder: Path, *, remove: bool) -> Iterator[tuple[str, int]]:
    """Names and sizes of the files in a spool's ``folder`` whose process has ended. With ``remove`` each is removed
    before it is yielded. Any process may call this while others write there. Files of others are left alone.
    """
    with translated("listing the spool"):
        if not folder.is_dir():
            return
        with opened_folder(folder) as fd:
            for name in own_files(fd, is_new_name):
                if (size := _if_left(fd, name, remove=remove)) is not None:
                    yield name, size


def remove_old_partials(folder: Path) -> None:
    """Remove the uploads in parts that an older version of the server kept in its data dir, if there are any."""
    with translated("removing old uploads"):
        if not folder.is_dir() or folder.is_symlink():
            return
        with opened_folder(folder) as fd:
            for name in own_files(fd, lambda name: is_new_name(name.removesuffix(".pack"))):
                os.unlink(name, dir_fd=fd)


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
    """The folder that uploads arrive in. A missing folder is made. Needs ``close``.

    Files in the spool are not durable: an upload that is kept becomes a pack, and the store makes the pack durable. So
    an upload with nothing new never waits for fsync. Without ``room`` uploads may fill the disk.
    """

    def __init__(self, folder: Path, room: Room | None = None) -> None:
        self.room = room or Room(folder)
        self._folder = folder
        # Separate pools: these tasks wait for no other tasks, and no hash waits for a disk.
        self._writers = FairPool(_WRITERS, "spool-write")
        self._hashers = FairPool(os.cpu_count() or 1, "spool-hash")
        with translated("creating the spool"):
            make_folder(folder, durable=False)

    def create(self, name: str, *, with_sha256: bool = False) -> SpoolFile:
        """Make a new empty file. Names are made of [a-z0-9]. Raises StoreError if the name is taken."""
        path = self._folder / checked(name)
        return SpoolFile(path, self._writers, self._hashers, self.room, with_sha256=with_sha256)

    @contextmanager
    def sparse(self, size: int) -> Iterator[SparseFile]:
        """Make a file of ``size`` bytes, and remove it at the end."""
        file = SparseFile(self._folder / new_name(), size, self.room)
        try:
            yield file
        finally:
            file.discard()

    def clear(self) -> int:
        """Remove the files that a crash left, and return their number."""
        return sum(1 for _ in left_behind(self._folder, remove=True))

    def close(self) -> None:
        self._writers.shutdown()
        self._hashers.shutdown()
