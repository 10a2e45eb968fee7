"""A checkpoint file split for an upload in parts: its storages, and its frame, which is all the rest.

Both are cut into blocks of at most 16 MiB, numbered from the frame's first. The places of the storages are read from a
zip's directory or a safetensors header; no pickle is read.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from blake3 import blake3

from .._digest import BLOCK_SIZE
from .._errors import InvalidRequest

MIN_STORAGE = 4096
"""Size in bytes up to which a storage belongs to the frame."""

READ_SIZE = 1024 * 1024

Span = tuple[int, int]
"""The byte range ``[start, end)`` of a file."""


class Split(ABC):
    """A file of ``size`` bytes whose storages lie at ``storages``, in order. A subclass reads its bytes."""

    def __init__(self, size: int, storages: Sequence[Span]) -> None:
        self.size = size
        self.storages = storages
        frame = _between(size, storages)
        self.blocks: list[list[Span]] = [*_cut(frame)] or [[]]
        """The spans of each block in the file."""
        for span in storages:
            self.blocks += _cut([span])

    def length(self, number: int) -> int:
        """Return the size of a block in bytes."""
        return sum(end - start for start, end in self.blocks[number])

    def views(self, number: int) -> Iterator[memoryview]:
        """Yield a block's bytes, in order; a view is valid until the next one. Several threads may call it at once."""
        for start, end in self.blocks[number]:
            yield from self.read(start, end)

    def digest(self, number: int) -> str:
        """Return a block's BLAKE3 digest, in hex."""
        hasher = blake3()
        for view in self.views(number):
            hasher.update(view)
        return hasher.hexdigest()

    def check(self, parts: Sequence[range]) -> None:  # noqa: B027  most splits have all their bytes
        """Raise an error if blocks of these numbers cannot be sent, because their bytes are elsewhere."""

    @abstractmethod
    def read(self, start: int, end: int) -> Iterator[memoryview]:
        """Yield the file's bytes from ``start`` to ``end``."""


class FileSplit(Split):
    """A file on a disk, open as ``file``."""

    def __init__(self, file: IO[bytes], size: int, storages: Sequence[Span]) -> None:
        super().__init__(size, storages)
        self._file = file

    def read(self, start: int, end: int) -> Iterator[memoryview]:
        while start < end:
            data = os.pread(self._file.fileno(), min(READ_SIZE, end - start), start)
            if not data:
                raise InvalidRequest("the file was truncated while it was sent")
            yield memoryview(data)
            start += len(data)


class MemorySplit(Split):
    """A file that exists only as pieces of memory, one after another; its storages are the memory of tensors."""

    def __init__(self, pieces: Sequence[memoryview], storages: Sequence[Span]) -> None:
        self._pieces = pieces
        self._starts = [0]
        for piece in pieces:
            self._starts.append(self._starts[-1] + len(piece))
        super().__init__(self._starts[-1], storages)

    def read(self, start: int, end: int) -> Iterator[memoryview]:
        number = bisect_right(self._starts, start) - 1
        while start < end:
            offset = start - self._starts[number]
            view = self._pieces[number][offset : offset + end - start]
            yield view
            start += len(view)
            number += 1


def split_file(file: IO[bytes]) -> FileSplit | None:
    """Split a checkpoint file on a disk; return None if its storages cannot be found."""
    if not hasattr(os, "pread"):
        return None
    size = os.fstat(file.fileno()).st_size
    spans = storages_in(file, size)
    return None if spans is None else FileSplit(file, size, spans)


def storages_in(file: IO[bytes], size: int) -> list[Span] | None:
    """Return the spans of a checkpoint file's storages, in order; None if they cannot be found."""
    try:
        spans = sorted(_zip_storages(file) if zipfile.is_zipfile(file) else _safetensors_storages(file, size))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, zipfile.BadZipFile):
        return None  # the server's error describes the damage better
    end = 0
    for start, stop in spans:
        if start < end or stop > size:
            return None
        end = stop
    return spans


def _zip_storages(file: IO[bytes]) -> Iterator[Span]:
    with zipfile.ZipFile(file) as archive:
        yield from storages_of_zip(file, archive.infolist())


def storages_of_zip(file: IO[bytes], records: Iterable[zipfile.ZipInfo]) -> Iterator[Span]:
    """Yield the spans of the storages among the records of a zip in ``file``."""
    for record in records:
        is_storage = re.fullmatch(r"[^/]+/data/[^/]+", record.filename) is not None
        if is_storage and record.compress_type == zipfile.ZIP_STORED and record.file_size > MIN_STORAGE:
            header = os.pread(file.fileno(), 30, record.header_offset)
            name, extra = struct.unpack("<HH", header[26:])
            start = record.header_offset + 30 + name + extra
            yield start, start + record.file_size


def _safetensors_storages(file: IO[bytes], size: int) -> Iterator[Span]:
    (length,) = struct.unpack("<Q", os.pread(file.fileno(), 8, 0))
    if length > size:
        raise ValueError
    header: dict[str, Any] = json.loads(os.pread(file.fileno(), length, 8))
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = tensor["data_offsets"]
            if end - start > MIN_STORAGE:
                yield 8 + length + start, 8 + length + end


def _between(size: int, storages: Iterable[Span]) -> list[Span]:
    spans, position = [], 0
    for start, end in storages:
        if position < start:
            spans.append((position, start))
        position = end
    if position < size:
        spans.append((position, size))
    return spans


def _cut(spans: Iterable[Span]) -> Iterator[list[Span]]:
    """Spans, one after another, as blocks."""
    block: list[Span] = []
    room = BLOCK_SIZE
    for position, end in spans:
        start = position
        while start < end:
            stop = min(end, start + room)
            block.append((start, stop))
            room, start = room - (stop - start), stop
            if not room:
                yield block
                block, room = [], BLOCK_SIZE
    if block:
        yield block
