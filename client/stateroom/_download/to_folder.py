"""Downloads of a folder: its zip is fetched, and each byte of a file in it goes straight to its place.

The bytes between the storages come first: they hold the zip's directory, which tells where each file lies.
"""

from __future__ import annotations

import re
import stat
import zipfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO

from .._errors import DigestMismatch, InvalidRequest, UnexpectedAnswer
from .._printable import printable
from .index import Fetching
from .layout import Stored
from .to_file import InFile, check_rest

_COPY_SIZE = 1024 * 1024
_HEADER = Struct("<26xHH")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\:]|(?:\A|/)(?:\.{0,2})(?:/|\Z)")
"""Matches a path that could lead out of the folder, on any system."""


@dataclass(frozen=True)
class _Placed:
    """A file of the folder, at ``[start, end)`` of the zip."""

    path: Path
    start: int
    end: int


class _InPath:
    """A place in a file, from its byte ``start`` on; the file is opened for each write, because there may be many."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self._start = start

    def room(self, at: int, spare: memoryview) -> memoryview:
        return spare

    def put(self, at: int, received: memoryview) -> None:
        with self._path.open("r+b", buffering=0) as file:
            file.seek(self._start + at)
            while received:
                received = received[file.write(received) or 0 :]


@contextmanager
def appearing_folder(path: Path) -> Iterator[Path]:
    """Make a folder to fill, which gets its name when the block succeeds; after an error nothing is left of it. Raises
    InvalidRequest if something other than an empty folder has the name.
    """
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise InvalidRequest(
            f"{path.absolute()} exists and is not an empty folder: nothing was written. Give the path of a new folder"
        )
    with TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.absolute().parent) as made:
        inside = Path(made) / "folder"
        inside.mkdir()
        yield inside
        try:
            inside.replace(path)
        except OSError as error:
            raise InvalidRequest(f"{path.absolute()} cannot be made: {error.strerror}") from None


def fetch_folder(folder: Path, fetching: Fetching, *, verify: bool) -> None:
    """Write all files of the zip into an empty ``folder``."""
    layout = fetching.layout
    between = [Stored(start, end, None, ()) for start, end in layout.between()]
    with TemporaryFile(prefix="stateroom-") as frame:
        frame.truncate(layout.size)  # one hole, but for what is written
        fetching.receiver.fill([(part, InFile(frame, part.start)) for part in between])
        if verify and layout.rest is not None:
            check_rest(frame, between, layout.rest)
        files = _files_of(frame, layout.size, folder)
        for file in files:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            with file.path.open("xb") as made:
                made.truncate(file.end - file.start)
        starts = [file.start for file in files]
        for part in between:
            _copy(frame, part, files, starts)
    wanted = []
    for stored in layout.storages:
        file = files[max(0, bisect_right(starts, stored.start) - 1)]
        if not file.start <= stored.start <= stored.end <= file.end:
            raise UnexpectedAnswer("the index of a folder has bytes that belong to no file")
        wanted.append((stored, _InPath(file.path, stored.start - file.start)))
    fetching.receiver.fill(wanted)


def _files_of(frame: IO[bytes], size: int, folder: Path) -> list[_Placed]:
    """Read the zip's directory. Raises UnexpectedAnswer for paths that lead out of the folder, or places that cannot
    be.
    """
    files: list[_Placed] = []
    try:
        with zipfile.ZipFile(frame) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        end = 0
        for entry in entries:
            frame.seek(entry.header_offset)
            start = entry.header_offset + 30 + sum(_HEADER.unpack(frame.read(30)))
            is_odd = entry.compress_type != zipfile.ZIP_STORED or stat.S_ISLNK(entry.external_attr >> 16)
            if is_odd or entry.header_offset < end or start + entry.file_size > size:
                raise UnexpectedAnswer(f"the folder's file {printable(entry.filename)} is not where the zip says")
            end = start + entry.file_size
            if not entry.filename.endswith("/"):
                files.append(_Placed(_safe(folder, entry.orig_filename), start, end))
    except (zipfile.BadZipFile, ValueError, KeyError, OSError) as error:
        raise DigestMismatch(f"the downloaded folder is damaged: {printable(str(error))}") from None
    if not files or len({file.path for file in files}) != len(files):
        raise UnexpectedAnswer("the server sent a folder with no files, or with one file twice")
    return files


def _safe(folder: Path, name: str) -> Path:
    if not name or name.startswith("/") or _UNSAFE.search(name):
        raise UnexpectedAnswer(f"the server sent a file {printable(name)!r}, whose path is not within a folder")
    return folder / name


def _copy(frame: IO[bytes], part: Stored, files: list[_Placed], starts: list[int]) -> None:
    """Copy the bytes of a part that belong to files to their places."""
    number = max(0, bisect_right(starts, part.start) - 1)
    while number < len(files) and files[number].start < part.end:
        file = files[number]
        start, end = max(file.start, part.start), min(file.end, part.end)
        if start < end:
            frame.seek(start)
            with file.path.open("r+b") as target:
                target.seek(start - file.start)
                while start < end:
                    data = frame.read(min(_COPY_SIZE, end - start))
                    target.write(data)
                    start += len(data)
        number += 1
