"""Writes a zip around uncompressed records, and tells where each record lies in it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

FULL = 0xFFFFFFFF
"""Value of a 32-bit field whose number is too large for it, and is in a zip64 field instead."""

_OLD, _ZIP64 = 20, 45  # zip versions that a reader needs
_UTF8 = 0x800
_PADDING = 0x4246  # the extra field that torch pads with

ALIGNMENT = 64
"""Alignment of a record's data, in bytes, as in torch's files, so that the data can be mapped into memory."""


class Described(Protocol):
    """A file in the zip. ``checksum`` is its CRC32; 0 means that it was not computed."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def checksum(self) -> int: ...


@dataclass(frozen=True)
class Record:
    """A file in the zip, in memory."""

    name: str
    data: memoryview
    checksum: int

    @property
    def size(self) -> int:
        return len(self.data)


def zipped(records: Sequence[Record]) -> tuple[list[memoryview], list[int]]:
    """Return the zip as pieces, which include the records' data uncopied, and where each record's data begin."""
    pieces: list[memoryview] = []
    places: list[int] = []
    offsets: list[int] = []
    position = 0
    for record in records:
        head = local_header(record, position)
        offsets.append(position)
        pieces += [memoryview(head), record.data]
        places.append(position + len(head))
        position += len(head) + len(record.data)
    pieces.append(memoryview(directory(records, offsets, position)))
    return pieces, places


def around(records: Sequence[Record], last: Described) -> tuple[bytes, bytes]:
    """Return the bytes of a zip before and after the data of ``last``, which follows the other records."""
    pieces: list[bytes | memoryview] = []
    offsets: list[int] = []
    position = 0
    for record in records:
        head = local_header(record, position)
        offsets.append(position)
        pieces += [head, record.data]
        position += len(head) + record.size
    head = local_header(last, position)
    end = directory([*records, last], [*offsets, position], position + len(head) + last.size)
    return b"".join([*pieces, head]), end


def directory(records: Sequence[Described], offsets: Sequence[int], start: int) -> bytes:
    """Return the directory and the end of a zip, which begin at ``start``. ``offsets`` are those of the headers."""
    entries = b"".join(map(_entry, records, offsets))
    return entries + _end(len(records), len(entries), start)


def local_header(record: Described, offset: int) -> bytes:
    """Return the bytes before a file's data; ``offset`` is theirs in the zip."""
    size = record.size
    name = record.name.encode()
    extra = _zip64_extra([size, size] if size >= FULL else [])
    padding = -(offset + 30 + len(name) + len(extra) + 4) % ALIGNMENT
    extra += struct.pack("<HH", _PADDING, padding) + b"Z" * padding
    return struct.pack(
        "<4sHHHHHLLLHH",
        b"PK\3\4", _ZIP64 if size >= FULL else _OLD, _UTF8, 0, 0, 0, record.checksum, min(size, FULL), min(size, FULL),
        len(name), len(extra),
    ) + name + extra  # fmt: skip


def _entry(record: Described, offset: int) -> bytes:
    size = record.size
    extra = _zip64_extra([*([size, size] if size >= FULL else []), *([offset] if offset >= FULL else [])])
    name, version = record.name.encode(), _ZIP64 if extra else _OLD
    return struct.pack(
        "<4sHHHHHHLLLHHHHHLL",
        b"PK\1\2", version, version, _UTF8, 0, 0, 0, record.checksum, min(size, FULL), min(size, FULL),
        len(name), len(extra), 0, 0, 0, 0, min(offset, FULL),
    ) + name + extra  # fmt: skip


def _zip64_extra(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


def _end(count: int, size: int, start: int) -> bytes:
    """Return the end of the directory, with a zip64 end before it if a number needs one."""
    few = min(count, 0xFFFF)
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, few, few, min(size, FULL), min(start, FULL), 0)
    if count < 0xFFFF and size < FULL and start < FULL:
        return end
    large = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, _ZIP64, _ZIP64, 0, 0, count, count, size, start)
    return large + struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1) + end
