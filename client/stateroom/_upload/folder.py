"""A folder as one zip file without compression, whose bytes are read from the folder's files as they are sent."""

from __future__ import annotations

import os
import stat
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .._errors import InvalidRequest
from .._raw_file import RawFile
from .._threads import side_by_side
from .items import storages_of_items
from .split import MIN_STORAGE, READ_SIZE, Span, Split, storages_in
from .zip_writer import directory, local_header

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Ends of the names of files that the server reads as checkpoints."""

READ_BY_NAME = (".index.json", "trainer_state.json")
"""Ends of the names of other files that the server reads."""

DCP_METADATA = ".metadata"
DCP_ITEMS = ".distcp"
"""The file that describes a save of torch.distributed.checkpoint, and the end of the names of those with its items."""

_LEGACY = (bytes.fromhex("8a0a6cfc9c46f9206aa85019"), b"L119547037146038801333356L")
"""The magic number at the start of files from before torch 1.6, in two pickle protocols."""


@dataclass(frozen=True)
class LocalFile:
    """A file to be sent: its path in the folder, and its state when the folder was listed."""

    name: str
    location: Path
    size: int
    modified: int
    checksum: int = 0

    def opened(self) -> IO[bytes]:
        """Open the file. Raises InvalidRequest if it is not as it was."""
        try:
            file = self.location.open("rb")
        except OSError as error:
            raise InvalidRequest(f"{self.location} cannot be read: {error.strerror}") from None
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
            file.close()
            raise InvalidRequest(f"{self.location} changed while the folder was sent; upload the folder again")
        return file

    def read(self, start: int, view: memoryview) -> None:
        """Read the bytes from ``start`` on into all of ``view``."""
        with self.opened() as file:
            file.seek(start)
            while view:
                count = file.readinto(view)  # type: ignore[attr-defined]  # a buffered file has it
                if not count:
                    raise InvalidRequest(f"{self.location} was truncated while the folder was sent")
                view = view[count:]


def files_in(folder: Path) -> list[LocalFile]:
    """List a folder's files, sorted by path. A link to a file counts as that file. Raises InvalidRequest for a folder
    without files, and for what cannot be sent: links to folders, links to nothing, and special files.
    """
    found: list[LocalFile] = []
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        for name in folders:
            if (path := Path(place, name)).is_symlink():
                raise InvalidRequest(f"{path} is a link to a folder: upload a folder that has its files in it")
        found += [_local_file(folder, Path(place, name)) for name in names]
    if not found:
        raise InvalidRequest(f"{folder.absolute()} has no files; upload a folder with a checkpoint in it")
    return sorted(found, key=lambda file: file.name)


def _unreadable(error: OSError) -> None:
    raise InvalidRequest(f"the folder {error.filename} cannot be read: {error.strerror}")


def _local_file(folder: Path, path: Path) -> LocalFile:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
        state = path.stat()
    except UnicodeEncodeError:
        raise InvalidRequest(f"the name of {name.encode(errors='replace')!r} is not UTF-8: rename the file") from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(state.st_mode):
        raise InvalidRequest(f"{path} is not a regular file: remove it from the folder")
    return LocalFile(name, path, state.st_size, state.st_mtime_ns)


class FolderZip(RawFile):
    """The zip of a folder. ``storages`` are the spans of its tensors' bytes and of long files that are no checkpoints;
    None if they cannot be found without reading a pickle.
    """

    def __init__(self, files: Sequence[LocalFile], connections: int) -> None:
        sums = side_by_side(_checksum, files, connections)
        self._files = [LocalFile(f.name, f.location, f.size, f.modified, one) for f, one in zip(files, sums)]
        self._pieces: list[bytes | LocalFile] = []
        self._starts: list[int] = []
        position, places = 0, []
        for file in self._files:
            head = local_header(file, position)
            self._add(head, position)
            self._add(file, position + len(head))
            places.append(position)
            position += len(head) + file.size
        tail = directory(self._files, places, position)
        self._add(tail, position)
        super().__init__(position + len(tail))

    @property
    def size(self) -> int:
        return self._size

    @property
    def storages(self) -> list[Span] | None:
        spans: list[Span] = []
        named = _named_by_saves(self._files)
        for start, file in zip(self._starts, self._pieces):
            if isinstance(file, LocalFile):
                inside = _item_storages(file) if file.name in named else _storages(file)
                if inside is None:
                    return None
                spans += [(start + first, start + end) for first, end in inside]
        return spans

    def fill(self, at: int, view: memoryview) -> None:
        number = bisect_right(self._starts, at) - 1
        while view:
            piece = self._pieces[number]
            offset = at - self._starts[number]
            size = piece.size if isinstance(piece, LocalFile) else len(piece)
            count = min(len(view), size - offset)
            if count and isinstance(piece, LocalFile):
                piece.read(offset, view[:count])
            elif count:
                view[:count] = piece[offset : offset + count]  # type: ignore[index]  # bytes, as the branch says
            at, view, number = at + count, view[count:], number + 1

    def _add(self, piece: bytes | LocalFile, start: int) -> None:
        self._pieces.append(piece)
        self._starts.append(start)


class FolderSplit(Split):
    """The zip of a folder, split."""

    def __init__(self, folder: FolderZip, storages: Sequence[Span]) -> None:
        super().__init__(folder.size, storages)
        self._folder = folder

    def read(self, start: int, end: int) -> Iterator[memoryview]:
        while start < end:
            view = memoryview(bytearray(min(READ_SIZE, end - start)))
            self._folder.fill(start, view)
            yield view
            start += len(view)


def _checksum(file: LocalFile) -> int:
    checksum = 0
    with file.opened() as opened:
        while data := opened.read(READ_SIZE):
            checksum = zlib.crc32(data, checksum)
    return checksum


def _named_by_saves(files: Sequence[LocalFile]) -> set[str]:
    """Return the names of the files with items of a save, as far as a ``.metadata`` file has them in its bytes."""
    named: set[str] = set()
    items = [file.name for file in files if file.name.endswith(DCP_ITEMS)]
    for file in files if items else ():
        folder, _, name = file.name.rpartition("/")
        if name == DCP_METADATA:
            with file.opened() as opened:
                text = opened.read()
            below = f"{folder}/" if folder else ""
            named |= {each for each in items if each.startswith(below) and each[len(below) :].encode() in text}
    return named


def _item_storages(file: LocalFile) -> list[Span] | None:
    with file.opened() as opened:
        return storages_of_items(opened, file.size)


def _storages(file: LocalFile) -> list[Span] | None:
    """Return the spans in a file that are blobs of their own; None for a checkpoint whose pickle would tell them."""
    whole = [(0, file.size)] if file.size > MIN_STORAGE else []
    if not file.name.lower().endswith(CHECKPOINTS):
        name = file.name.rpartition("/")[2]
        return [] if name == DCP_METADATA or name.endswith(READ_BY_NAME) else whole
    with file.opened() as opened:
        head = opened.read(32)
        if head[:4] == b"PK\3\4" or head[8:9] == b"{":
            return storages_in(opened, file.size)
    return None if any(magic in head for magic in _LEGACY) else whole
