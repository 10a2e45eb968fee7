"""A torch file without the bytes of its storages, for torch.load to read: torch asks for one storage after another, and
each request tells where its bytes belong.

The client makes this file around the pickle, because torch does not care about the layout of the server's file.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from struct import Struct
from typing import Callable

from .._raw_file import RawFile

_LOCAL = Struct("<4sHHHHHIIIHH").pack
_CENTRAL = Struct("<4sHHHHHHIIIHHHHHII").pack
_ZIP64 = Struct("<HHQQQ").pack
_END64 = Struct("<4sQHHIIQQQQ4sIQI").pack
_END = Struct("<4sHHHHIIH").pack
SEARCHED = 4096
"""Bytes at the end in which torch searches for the end of the directory: they must contain no storage."""

_U16, _U32 = 0xFFFF, 0xFFFFFFFF

Ask = Callable[[int, int, memoryview], None]
"""Called as ``ask(number, at, view)``: write the bytes of storage ``number`` from ``at`` on into ``view``."""


class VirtualZip(RawFile):
    """A torch file of ``pickle`` and storages of these ``sizes`` under the keys ``0``, ``1``, ..."""

    def __init__(self, pickle: bytes, sizes: Sequence[int], byteorder: str, ask: Ask) -> None:
        super().__init__()
        self._ask = ask
        self._starts: list[int] = []
        self._parts: list[bytes | int] = []  # bytes, or a storage's number
        self._directory: list[bytes] = []
        self._add("data.pkl", pickle)
        self._add("byteorder", byteorder.encode())
        for number, size in enumerate(sizes):
            self._add(f"data/{number}", number, size)
        self._add("version", b"3\n")
        self._put(bytes(SEARCHED))
        directory, start, count = b"".join(self._directory), self._size, len(self._directory)
        end = start + len(directory)
        self._put(directory)
        self._put(
            _END64(b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start, b"PK\6\7", 0, end, 1)
            + _END(b"PK\5\6", 0, 0, min(count, _U16), min(count, _U16), _U32, _U32, 0)
        )

    def _add(self, name: str, part: bytes | int, size: int | None = None) -> None:
        path = f"archive/{name}".encode()
        header = self._size
        crc32 = zlib.crc32(part) if isinstance(part, bytes) else 0
        length = len(part) if isinstance(part, bytes) else size or 0
        self._put(_LOCAL(b"PK\3\4", 45, 0, 0, 0, 0, crc32, _U32, _U32, len(path), 0) + path)
        self._put(part, length)
        fields = _CENTRAL(b"PK\1\2", 45, 45, 0, 0, 0, 0, crc32, _U32, _U32, len(path), 28, 0, 0, 0, 0, _U32)
        self._directory.append(fields + path + _ZIP64(1, 24, length, length, header))

    def _put(self, part: bytes | int, size: int | None = None) -> None:
        length = len(part) if isinstance(part, bytes) else size or 0
        if length:
            self._starts.append(self._size)
            self._parts.append(part)
            self._size += length

    def fill(self, at: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            i = bisect_right(self._starts, at + done) - 1
            part, start = self._parts[i], at + done - self._starts[i]
            end = self._starts[i + 1] if i + 1 < len(self._starts) else self._size
            room = view[done : end - at]
            if isinstance(part, bytes):
                room[:] = part[start : start + len(room)]
            else:
                self._ask(part, start, room)
            done += len(room)
