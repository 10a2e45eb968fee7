"""A folder whose files come from several processes: each has sent its blobs, and one knows the rest of the bytes."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Union

from blake3 import blake3

from .._digest import BLOCK_SIZE
from .._errors import Conflict
from .crc32 import combined
from .split import MIN_STORAGE, Span, Split
from .zip_writer import directory, local_header


class Source(Protocol):
    """Bytes of this process. ``read`` yields those from ``start`` to ``end``; a view is valid until the next one."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, end: int) -> Iterator[memoryview]: ...


@dataclass(frozen=True)
class Blob:
    """Bytes that the server has been sent: their size, their CRC32, and the digests of their 16 MiB blocks, in hex."""

    size: int
    checksum: int
    blocks: tuple[str, ...]


Piece = Union[bytes, Blob]


class BlobSplit(Split):
    """An upload that has only blobs, each of more than 4096 bytes, one for each of ``sources``."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._sums: dict[int, tuple[str, int]] = {}
        self._starts = [0]
        for source in sources:
            self._starts.append(self._starts[-1] + source.size)
        super().__init__(self._starts[-1], list(zip(self._starts, self._starts[1:])))

    def read(self, start: int, end: int) -> Iterator[memoryview]:
        number = bisect_right(self._starts, start) - 1
        before = self._starts[number]
        return self._sources[number].read(start - before, end - before)

    def digest(self, number: int) -> str:
        hasher, checksum = blake3(), 0
        for view in self.views(number):
            hasher.update(view)
            checksum = zlib.crc32(view, checksum)
        digest = hasher.hexdigest()
        self._sums[number] = digest, checksum
        return digest

    def blobs(self) -> Iterator[Blob]:
        """Yield the blobs, in order. All digests have been computed before."""
        number = 1  # after the frame's, which is empty
        for source in self._sources:
            digests, checksum = [], 0
            for start in range(0, source.size, BLOCK_SIZE):
                digest, of_block = self._sums[number]
                digests.append(digest)
                checksum = combined(checksum, of_block, min(BLOCK_SIZE, source.size - start))
                number += 1
            yield Blob(source.size, checksum, tuple(digests))


@dataclass(frozen=True)
class ShardFile:
    """A file of the folder, as the pieces that it consists of."""

    name: str
    pieces: Sequence[Piece]

    @property
    def size(self) -> int:
        return sum(map(size_of, self.pieces))

    @property
    def checksum(self) -> int:
        checksum = 0
        for piece in self.pieces:
            if isinstance(piece, Blob):
                checksum = combined(checksum, piece.checksum, piece.size)
            else:
                checksum = zlib.crc32(piece, checksum)
        return checksum


def size_of(piece: Piece) -> int:
    return piece.size if isinstance(piece, Blob) else len(piece)


def storages_of(data: memoryview) -> list[Span]:
    """Return the spans of the large storages in a file of torch.save, in order."""
    if len(data) <= MIN_STORAGE:
        return []
    spans = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for record in archive.infolist():
            if record.file_size > MIN_STORAGE and re.fullmatch(r"[^/]+/data/[^/]+", record.filename):
                start = record.header_offset + 30 + sum(struct.unpack_from("<HH", data, record.header_offset + 26))
                spans.append((start, start + record.file_size))
    return sorted(spans)


class ShardedFolder(Split):
    """The zip of the folder. Only bytes beside the blobs can be sent."""

    def __init__(self, files: Sequence[ShardFile]) -> None:
        self._pieces: list[Piece] = []
        self._starts: list[int] = []
        self._end = 0
        headers = []
        for file in files:
            headers.append(self._end)
            self._add([local_header(file, self._end), *file.pieces])
        self._add([directory(files, headers, self._end)])
        placed = list(zip(self._starts, self._pieces))
        blobs = [(start, piece) for start, piece in placed if isinstance(piece, Blob)]
        super().__init__(self._end, [(start, start + blob.size) for start, blob in blobs])
        self._digests = [digest for _, blob in blobs for digest in blob.blocks]
        self._of_frame = len(self.blocks) - len(self._digests)

    def digest(self, number: int) -> str:
        return super().digest(number) if number < self._of_frame else self._digests[number - self._of_frame]

    def check(self, parts: Sequence[range]) -> None:
        """Raise Conflict if the server lacks a blob."""
        gone = sum(len(range(max(part.start, self._of_frame), part.stop)) for part in parts)
        if gone:
            raise Conflict(
                f"{gone} blocks that processes of this job had sent are gone from the server by now: it keeps them for "
                "a day, or after a restart for the grace of its sweep. Nothing was saved; save again"
            )

    def read(self, start: int, end: int) -> Iterator[memoryview]:
        number = bisect_right(self._starts, start) - 1
        while start < end:
            piece, offset = self._pieces[number], start - self._starts[number]
            view = memoryview(b"" if isinstance(piece, Blob) else piece)[offset : offset + end - start]
            yield view
            start, number = start + len(view), number + 1

    def _add(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if size := size_of(piece):
                self._pieces.append(piece)
                self._starts.append(self._end)
                self._end += size
