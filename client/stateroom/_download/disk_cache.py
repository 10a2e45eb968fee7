"""Storages on a disk of this machine, so that what several checkpoints have in common is fetched once.

A folder with a file for each, named by its digest. Processes may share it, and several machines a network file system:
a file is written under a name of its own and renamed when every byte of it is verified, so that nobody ever sees half
of one, and whoever reads it verifies it again. That one process fetches what others wait for is no more than advice,
in files that are called claims: the worst that can come of a wrong one is that something is fetched twice.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from .._errors import InvalidRequest
from .._printable import printable
from .._private import check_private, private_folder, private_opener
from .._warn import warn

PART = ".part"
CLAIM = ".claim"
ALIVE = ".alive"

BEAT = 1.0
"""Seconds after which who fetches shows that it still does."""

ABANDONED = 5.0
"""Seconds without that, after which others take over what it claimed."""

LEFT_OVER = 3600
"""Seconds after which what a killed process left behind is removed."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class Cache:
    """The storages in ``folder``, of ``limit`` bytes together at most."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._warned = False
        self._lock = Lock()

    def find(self, digest: str, size: int) -> Path | None:
        """A storage's file. It counts as used now."""
        path = self.folder / _name(digest)
        try:
            found = path.stat().st_size
        except OSError:
            return None
        if found != size:
            return None
        with suppress(OSError):  # it may be somebody else's
            os.utime(path)
        return path

    def forget(self, path: Path) -> None:
        """A file turned out to be damaged."""
        with suppress(OSError):
            path.unlink()

    @contextmanager
    def fetching(self, size: int) -> Iterator[Fetch]:
        """While ``size`` bytes are fetched, for which there is room then."""
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
            why = f"cannot be written to ({printable(error)})"
            text = f"the cache {printable(self.folder)} {why}: what is fetched now is not kept"
            warn(text)

    def _make_room(self, size: int, now: float) -> None:
        """Remove what was not used for longest, until ``size`` bytes more fit in; and what was left over at the time
        ``now``, in the file system's own seconds.
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
    """One process's fetch of storages into a cache: what it has claimed, and a file that shows that it is alive.
    ``error`` is why nothing of it is kept.
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
        """What a storage is to be written to; None where somebody else writes it."""
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
        """Show that this fetch gets on."""
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
    """A storage that is being written, by several threads at once; unless its fetch has failed."""

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
        """All bytes were given to ``write``, and verified."""
        self._close()
        if self._fetch.error is None:
            try:
                self._part.replace(self._path)
            except OSError as error:
                self._fetch.error = error
        self.end()

    def end(self) -> None:
        """Leave nothing but what was published."""
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
    """What other processes have claimed, and whether they still get on with it, by this process's own clock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[float | None, float]] = {}

    def free_if_abandoned(self, digest: str) -> None:
        """Take the claim away from who has shown no life for long. Two that do so at once fetch it twice, at worst."""
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
    """By what a client is given, else by STATEROOM_CACHE_DIR and STATEROOM_CACHE_SIZE; None without a folder, and where
    the system does not write to a place in a file. Raises InvalidRequest.
    """
    folder = folder if folder is not None else os.environ.get("STATEROOM_CACHE_DIR")
    size = size if size is not None else os.environ.get("STATEROOM_CACHE_SIZE") or "20 GB"
    limit = _bytes_of(size)
    if not folder or not hasattr(os, "pwrite"):
        return None
    path = Path(folder).expanduser()
    check_private(path)
    return Cache(path, limit)


def _bytes_of(size: int | str) -> int:
    text = str(size).strip().upper()
    number = text.rstrip("BKMGT ")
    unit = text[len(number) :].strip()
    try:
        value = float(number) * _UNITS[unit]
        if 0 <= value < 2**63:
            return int(value)
    except (KeyError, ValueError):
        pass
    raise InvalidRequest(f"cache_size={size!r} is no size; give bytes, or such as '500 MB' or '20 GB'")


def _name(digest: str) -> str:
    return digest.replace(":", "-")
