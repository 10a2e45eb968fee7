"""A disk cache of storages, so that the storages shared by several checkpoints are fetched once.

The cache is a folder with a file for each storage, named by its digest. Processes may share it, and several machines
may share it on a network file system: a file is written under a unique name and renamed when every byte of it is
verified, so that nobody ever sees half of one, and every reader verifies it again. The claim files, by which one
process fetches what others wait for, are only advice: the worst effect of a wrong one is that something is fetched
twice.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from .._printable import printable
from .._private import check_private, private_folder, private_opener
from .._sizes import bytes_of
from .._warn import warn

PART = ".part"
CLAIM = ".claim"
ALIVE = ".alive"

BEAT = 1.0
"""Heartbeat interval, in seconds, of a process that is fetching."""

ABANDONED = 5.0
"""Seconds without a heartbeat, after which others take over a process's claims."""

LEFT_OVER = 3600
"""Seconds after which the files of a killed process are removed."""


class Cache:
    """The storages in ``folder``, at most ``limit`` bytes together."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._warned = False
        self._lock = Lock()

    def find(self, digest: str, size: int) -> Path | None:
        """Return a storage's file, and mark it as used now."""
        path = self.folder / _name(digest)
        try:
            found = path.stat().st_size
        except OSError:
            return None
        if found != size:
            return None
        with suppress(OSError):  # another user may own it
            os.utime(path)
        return path

    def forget(self, path: Path) -> None:
        """Remove a file that turned out to be damaged."""
        with suppress(OSError):
            path.unlink()

    def keep(self, name: str, data: bytes) -> None:
        """Keep a small file. Like a storage, it is removed when it was not used for long."""
        path = self.folder / name
        part = path.with_name(f"{name}.{uuid.uuid4().hex}{PART}")
        try:
            private_folder(self.folder)
            with open(part, "xb", opener=private_opener) as file:
                file.write(data)
            part.replace(path)
        except OSError as error:
            self.warn_once(error)
            with suppress(OSError):
                part.unlink()

    def read(self, name: str) -> bytes | None:
        """Return a small file's contents, and mark it as used now; None if there is none."""
        path = self.folder / name
        with suppress(OSError):
            data = path.read_bytes()
            os.utime(path)
            return data
        return None

    @contextmanager
    def fetching(self, size: int) -> Iterator[Fetch]:
        """Make room for ``size`` bytes, and yield the Fetch that writes them."""
        fetch = Fetch(self.folder)
        if fetch.error is None:
            try:
                self._make_room(size, fetch.began)
            except OSError as error:
                fetch.error = error
        try:
            yield fetch
        finally:
            fetch.end()

    def warn_once(self, error: OSError) -> None:
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            why = f"cannot be written ({printable(error)})"
            text = f"the cache {printable(self.folder)} {why}: this download is not cached"
            warn(text)

    def _make_room(self, size: int, now: float) -> None:
        """Remove the least recently used storages until ``size`` bytes more fit in, and files of killed processes.
        ``now`` is the file system's own time, in seconds.
        """
        entries: list[tuple[float, int, Path]] = []
        total = size
        for path in self.folder.iterdir():
            with suppress(OSError):  # it is gone by now
                stat = path.stat()
                if path.suffix not in {PART, CLAIM, ALIVE}:
                    entries.append((stat.st_mtime, stat.st_size, path))
                elif stat.st_mtime < now - LEFT_OVER:
                    path.unlink()
                    continue
                total += stat.st_size
        for _, freed, path in sorted(entries):
            if total <= self.limit:
                return
            self.forget(path)
            total -= freed


class Fetch:
    """One process's fetch of storages into a cache: its claims, and a file that shows that the process is alive.
    ``error`` is why nothing is cached.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._id = uuid.uuid4().hex
        self._alive = folder / (self._id + ALIVE)
        self._beaten = time.monotonic()
        self._entries: list[Entry] = []
        self.error: OSError | None = None
        try:
            private_folder(folder)
            self._alive.touch(0o600)
            self.began = self._alive.stat().st_mtime
        except OSError as error:
            self.error = error

    def claim(self, digest: str) -> Entry | None:
        """Return the entry to write a storage to; None if another process is writing it."""
        if self.error is None:
            try:
                with open(self._folder / (_name(digest) + CLAIM), "x", opener=private_opener) as claim:
                    claim.write(self._id)
            except FileExistsError:
                return None
            except OSError as error:
                self.error = error
        self._entries.append(Entry(self, self._folder / _name(digest), self._id))
        return self._entries[-1]

    def beat(self) -> None:
        """Show that this process is still fetching."""
        now = time.monotonic()
        if now - self._beaten > BEAT:
            self._beaten = now
            with suppress(OSError):
                os.utime(self._alive)

    def end(self) -> None:
        for entry in self._entries:
            entry.end()
        with suppress(OSError):
            self._alive.unlink()


class Entry:
    """A storage that several threads are writing to the cache. After its fetch has failed, writes do nothing."""

    def __init__(self, fetch: Fetch, path: Path, unique: str) -> None:
        self._fetch = fetch
        self._path = path
        self._part = path.with_name(f"{path.name}.{unique}{PART}")
        self._file: int | None = None
        self._ended = False
        self._lock = Lock()

    def write(self, at: int, data: memoryview) -> None:
        if self._fetch.error is None:
            try:
                while data:
                    written = os.pwrite(self._opened(), data, at)
                    at, data = at + written, data[written:]
            except OSError as error:
                self._fetch.error = error
        self._fetch.beat()

    def publish(self) -> None:
        """Give the file its name, after all bytes were given to ``write`` and verified."""
        self._close()
        if self._fetch.error is None:
            try:
                self._part.replace(self._path)
            except OSError as error:
                self._fetch.error = error
        self.end()

    def end(self) -> None:
        """Remove the claim, and the file if it was not published."""
        if self._ended:
            return
        self._ended = True
        self._close()
        for path in (self._part, self._path.with_name(self._path.name + CLAIM)):
            with suppress(OSError):
                path.unlink()

    def _opened(self) -> int:
        with self._lock:
            if self._file is None:
                self._file = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            return self._file

    def _close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None


class Others:
    """The claims of other processes, and whether their heartbeats go on, measured by this process's own clock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[float | None, float]] = {}

    def free_if_abandoned(self, digest: str) -> None:
        """Remove a claim whose process has shown no heartbeat for long. Two processes that do so at once fetch it
        twice, at worst.
        """
        claim = self._folder / (_name(digest) + CLAIM)
        try:
            owner = claim.read_text()
        except OSError:
            return
        try:
            beat = (self._folder / (owner + ALIVE)).stat().st_mtime
        except OSError:
            beat = None
        now = time.monotonic()
        last, since = self._seen.setdefault(digest, (beat, now))
        if beat != last:
            self._seen[digest] = beat, now
        elif now - since > ABANDONED:
            del self._seen[digest]
            with suppress(OSError):
                claim.unlink()


def cache_of(folder: str | os.PathLike[str] | None, size: int | str | None) -> Cache | None:
    """Return the cache of the given folder and size, or of STATEROOM_CACHE_DIR and STATEROOM_CACHE_SIZE; None without a
    folder, or if the system has no ``pwrite``. Raises InvalidRequest.
    """
    folder = folder if folder is not None else os.environ.get("STATEROOM_CACHE_DIR")
    size = size if size is not None else os.environ.get("STATEROOM_CACHE_SIZE") or "20 GB"
    limit = bytes_of("cache_size", size)
    if not folder or not hasattr(os, "pwrite"):
        return None
    path = Path(folder).expanduser()
    check_private(path)
    return Cache(path, limit)


def _name(digest: str) -> str:
    return digest.replace(":", "-")
