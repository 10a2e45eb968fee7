"""Writer of a torch zip file as a virtual file, with the byte layout of torch's own writer (2.7 and later).

The ``.format_version`` record requires that exactness: torch may then compute a storage's offset without reading the
directory. Records, in order::

    data.pkl  .format_version  .storage_alignment  byteorder  data/0 ... data/n  version  .data/serialization_id

Each is a local header (sizes and CRC zero), an ``FB`` extra field that pads the data to 64 bytes, the data, and
a descriptor with CRC and sizes. Source: torch's ``caffe2/serialize/inline_container.cc`` and its miniz.
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from ...values.conversion import Conversion
from ...values.span import Span
from ...values.virtual_file import VirtualFile

WRITER_REVISION = 1
"""Increased whenever the bytes written for one input change, so that no ETag ever names two byte strings."""

ALIGNMENT = 64
PICKLE_START = ALIGNMENT
"""Offset of the pickle: it is the first record, and its header fits before this offset."""

_ROOT = "archive"
_U16_MAX = 0xFFFF
_U32_MAX = 0xFFFFFFFF
_UTF8 = 0x0800
_HAS_DESCRIPTOR = 0x0008

_LOCAL = struct.Struct("<4sHHHHHIIIHH").pack
_CENTRAL_START = struct.Struct("<4sHHHHHH").pack
_CENTRAL_END = struct.Struct("<IIHHHHHII").pack
_U16, _U32, _U32_TWICE = struct.Struct("<H").pack, struct.Struct("<I").pack, struct.Struct("<II").pack
_PADDINGS = [b"FB" + _U16(padding) + b"Z" * padding for padding in range(ALIGNMENT)]
"""The extra field that pads a record's data, by the bytes that it pads."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record ``data/N``: bytes of the uploaded file, or a conversion. ``crc32`` is None if yet to be computed."""

    source: Span | Conversion
    crc32: int | None

    @property
    def size(self) -> int:
        return self.source.length if isinstance(self.source, Span) else self.source.size


def write_torch_zip(pickle: bytes, storages: Sequence[Record], byteorder: str) -> tuple[VirtualFile, tuple[Span, ...]]:
    """Lay out the file that torch.load reads as ``pickle`` with ``storages[N]`` under the key ``str(N)``.

    Return also the span of each storage in the file.
    """
    archive = _Archive()
    archive.add_bytes("data.pkl", pickle)
    archive.add_bytes(".format_version", b"1")
    archive.add_bytes(".storage_alignment", str(ALIGNMENT).encode())
    archive.add_bytes("byteorder", byteorder.encode())
    spans = tuple(archive.add_record(f"data/{number}", record) for number, record in enumerate(storages))
    archive.add_bytes("version", b"3\n")
    archive.add_bytes(".data/serialization_id", _serialization_id(pickle, storages))
    return archive.finish(), spans


def _serialization_id(pickle: bytes, storages: Sequence[Record]) -> bytes:
    """Return 40 decimal digits computed from the content."""
    digest = hashlib.sha256(pickle)
    for record in storages:
        span = record.source if isinstance(record.source, Span) else record.source.source
        digest.update(struct.pack("<qq", span.start, span.end))
    return f"{int.from_bytes(digest.digest()) % 10**40:040}".encode()


class _Archive:
    def __init__(self) -> None:
        self.file = VirtualFile()
        self.directory = VirtualFile()
        self.entries = 0

    def add_bytes(self, name: str, data: bytes) -> None:
        header = self._start(name, len(data))
        self.file.add_literal(data)
        self._end(name, len(data), header, zlib.crc32(data), None)

    def add_record(self, name: str, record: Record) -> Span:
        header, size, crc32 = self.file.size, record.size, record.crc32
        if crc32 is not None and 0 < size < _U32_MAX > header:
            return self._add_plain_record(f"{_ROOT}/{name}".encode(), header, size, _U32(crc32), record.source)
        header = self._start(name, record.size)
        start = self.file.size
        self.file.add(record.source)
        self._end(name, record.size, header, record.crc32, record.source)
        return Span(start, start + record.size)

    def _add_plain_record(self, path: bytes, header: int, size: int, crc32: bytes, source: Span | Conversion) -> Span:
        """Add a record without zip64 fields, whose CRC32 is known, as ``_start`` and ``_end`` would: most are such."""
        padding = -(header + 34 + len(path)) % ALIGNMENT
        flags, sizes = _UTF8 | _HAS_DESCRIPTOR, _U32_TWICE(size, size)
        self.file.add_literal(
            _LOCAL(b"PK\3\4", 0, flags, 0, 0, 0, 0, 0, 0, len(path), 4 + padding) + path + _PADDINGS[padding]
        )
        start = self.file.size
        self.file.add(source)
        self.file.add_literal(b"PK\7\10" + crc32 + sizes)
        self.directory.add_literal(
            _CENTRAL_START(b"PK\1\2", 0, 0, flags, 0, 0, 0)
            + crc32
            + _CENTRAL_END(size, size, len(path), 0, 0, 0, 0, 0, header)
            + path
        )
        self.entries += 1
        return Span(start, start + size)

    def _start(self, name: str, size: int) -> int:
        """Write the local header; return its offset."""
        header = self.file.size
        path = f"{_ROOT}/{name}".encode()
        zip64 = _zip64_extra(size, 0, header)
        padding = -(header + 30 + len(path) + len(zip64) + 4) % ALIGNMENT
        extra = zip64 + _PADDINGS[padding]
        flags = _UTF8 | (_HAS_DESCRIPTOR if size else 0)
        self.file.add_literal(_LOCAL(b"PK\3\4", 0, flags, 0, 0, 0, 0, 0, 0, len(path), len(extra)) + path + extra)
        return header

    def _end(self, name: str, size: int, header: int, crc32: int | None, of: Span | Conversion | None) -> None:
        """Write the descriptor, and the record's entry in the directory."""
        zip64 = _zip64_extra(size, size, header)
        if size:
            sizes = struct.pack("<QQ", size, size) if zip64 else _U32_TWICE(size, size)
            _add_with_crc32(self.file, b"PK\7\10", crc32, of, sizes)
        path = f"{_ROOT}/{name}".encode()
        flags = _UTF8 | (_HAS_DESCRIPTOR if size else 0)
        size32 = min(size, _U32_MAX)
        _add_with_crc32(
            self.directory,
            _CENTRAL_START(b"PK\1\2", 0, 0, flags, 0, 0, 0),
            crc32 if size else 0,
            of,
            _CENTRAL_END(size32, size32, len(path), len(zip64), 0, 0, 0, 0, min(header, _U32_MAX)) + path + zip64,
        )
        self.entries += 1

    def finish(self) -> VirtualFile:
        """Write the directory and the three records that end a zip."""
        start, size = self.file.size, self.directory.size
        end = start + size
        self.file.extend(self.directory)
        counts = min(self.entries, _U16_MAX)
        self.file.add_literal(
            struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 0x031E, 45, 0, 0, self.entries, self.entries, size, start)
            + struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
            + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, counts, counts, min(size, _U32_MAX), min(start, _U32_MAX), 0)
        )
        return self.file


def _add_with_crc32(
    file: VirtualFile, before: bytes, crc32: int | None, of: Span | Conversion | None, after: bytes
) -> None:
    """Write a CRC32 between two literals; an unknown CRC32 is computed later, from ``of``."""
    if crc32 is not None:
        file.add_literal(before + _U32(crc32) + after)
        return
    file.add_literal(before)
    if isinstance(of, Span):
        file.add_checksum(of)
    elif of is not None:
        file.add_checksum_of(of)
    file.add_literal(after)


def _zip64_extra(size: int, compressed_size: int, header: int) -> bytes:
    """Make the 0x0001 field: both sizes if the size needs 64 bits, the header's offset if that does; else nothing."""
    if size < _U32_MAX > header:
        return b""
    values = (size, compressed_size) if size >= _U32_MAX else ()
    if header >= _U32_MAX:
        values = (*values, header)
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)
