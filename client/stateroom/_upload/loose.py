"""Loose files: files that are written to the server by name, each by whoever has it, before one client makes a
checkpoint of them.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

from .._api import ModelApi
from .._digest import BLOCK_SIZE
from .._errors import InvalidRequest, NotFound, ServerError, UnexpectedAnswer, understood
from .._parsing import kind_of, time_of
from .._query import optional
from .requests import stage_split
from .sharded import Blob, BlobSplit, Piece, size_of
from .split import READ_SIZE, Span

FILES_A_PAGE = 1_000

TEXT = 30 * 1024
"""Bytes in one text of a recipe."""


@dataclass(frozen=True)
class LooseFile:
    """A loose file of ``size`` bytes. Numbers ascend with time; ``replaced`` is that of the newest file under this path
    by another writer.
    """

    api: ModelApi
    number: int
    path: str
    size: int
    written_at: datetime
    replaced: int | None

    def pieces(self) -> list[Piece]:
        """Return the file's bytes, as far as they are not blobs. Raises NotFound if it was replaced meanwhile."""
        pieces = _pieces(self.api.http.json("GET", f"{_path(self.api)}/{self.number}")[0])
        if sum(map(size_of, pieces)) != self.size:
            raise UnexpectedAnswer(
                f"the server at {self.api.http.url} describes other bytes of {self.path} than it lists"
            )
        return pieces

    def read(self) -> bytes:
        """Return the file's bytes. Raises InvalidRequest for one with tensors."""
        pieces = self.pieces()
        data = b"".join(piece for piece in pieces if isinstance(piece, bytes))
        if len(data) != self.size:
            raise InvalidRequest(f"{self.path} is part of a save that has not ended: it can be read once it has")
        return data


class FileBytes:
    """A span of a file on the disk."""

    def __init__(self, file: IO[bytes], span: Span) -> None:
        self._file = file
        self._start, end = span
        self.size = end - self._start

    def read(self, start: int, end: int) -> Iterator[memoryview]:
        while start < end:
            data = os.pread(self._file.fileno(), min(READ_SIZE, end - start), self._start + start)
            if not data:
                raise OSError("the file was truncated while it was sent")
            yield memoryview(data)
            start += len(data)


def loose_files(api: ModelApi, under: str) -> list[LooseFile]:
    """Return the loose file at the path ``under``, or all in the folder of this name."""
    params = [*optional(under=under or None), ("limit", str(FILES_A_PAGE))]
    try:
        return [_loose_file(api, each) for each in api.http.pages(_path(api), params)]
    except InvalidRequest:
        return []  # no file can have this path
    except NotFound as error:
        _check_is_old(error)
        return []


def newest_change(api: ModelApi, under: str) -> int:
    """Return the number of the newest change at the path ``under`` and in the folder of this name."""
    try:
        answer, _ = api.http.json("GET", _path(api), [("under", under), ("limit", "1")])
    except NotFound as error:
        _check_is_old(error)
        return 0
    with understood("a list of loose files"):
        return kind_of(answer["newest"], int)


def write_loose(api: ModelApi, path: str, file: IO[bytes], storages: Sequence[Span], writer: str) -> None:
    """Write a file whose large ``storages`` are stored as blobs. Only those are sent that the server lacks."""
    size = os.fstat(file.fileno()).st_size
    blobs: list[Blob] = []
    if storages:
        split = BlobSplit([FileBytes(file, span) for span in storages])
        stage_split(api, split, label=path)
        blobs = list(split.blobs())
    edges = [0, *(edge for span in storages for edge in span), size]
    rest = b"".join(os.pread(file.fileno(), end - start, start) for start, end in zip(edges[::2], edges[1::2]))
    recipe = {
        "size": size,
        "storages": storages,
        "blocks": [block for blob in blobs for block in blob.blocks],
        "crc32s": [blob.checksum for blob in blobs],
        "rest": [base64.b64encode(rest[at : at + TEXT]).decode() for at in range(0, len(rest), TEXT)],
        "writer": writer,
    }
    try:
        api.http.json("PUT", _path(api), [("path", path)], body=recipe, safe=True)
    except NotFound as error:
        _check_is_old(error)
        raise ServerError(f"the server at {api.http.url} takes no files one by one: upgrade it") from None


def remove_loose(api: ModelApi, under: str, upto: int | None = None) -> bool:
    """Remove the file at the path ``under``, and those in the folder of this name, with numbers of at most ``upto``.
    Return False if there is none.
    """
    params = [("under", under), *optional(upto=None if upto is None else str(upto))]
    try:
        api.http.send("DELETE", _path(api), params, safe=True)
    except (NotFound, InvalidRequest):
        return False
    return True


def _path(api: ModelApi) -> str:
    return api.path.replace("/v1/models/", "/v1/loose-files/", 1)


def _check_is_old(error: NotFound) -> None:
    """Raise ``error`` unless it says that the server is of a version without loose files."""
    if error.code != "no-such-route":
        raise error


@understood("a loose file")
def _loose_file(api: ModelApi, data: Any) -> LooseFile:
    return LooseFile(
        api=api,
        number=kind_of(data["number"], int),
        path=kind_of(data["path"], str),
        size=kind_of(data["bytes"], int),
        written_at=time_of(data["written_at"]),
        replaced=data["replaced"],
    )


@understood("the bytes of a loose file")
def _pieces(recipe: Any) -> list[Piece]:
    rest = b"".join(base64.b64decode(text, validate=True) for text in recipe["rest"])
    blocks, pieces = list(recipe["blocks"]), list[Piece]()
    position = taken = first = 0
    for (start, end), checksum in zip(recipe["storages"], recipe["crc32s"]):
        pieces.append(rest[taken : taken + start - position])
        count = -(-(end - start) // BLOCK_SIZE)
        pieces.append(Blob(end - start, checksum, tuple(blocks[first : first + count])))
        taken, position, first = taken + start - position, end, first + count
    return [*pieces, rest[taken:]]
