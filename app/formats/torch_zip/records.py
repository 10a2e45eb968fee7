"""Zip files, read strictly: every byte of the file has one meaning, or the file is refused.

Records lie one behind the other from the first byte on: local header, name, extra field (which pads the data), data,
and, if the flags say so, a descriptor. The directory follows, then the zip64 end record and its locator, if any, then
the end record, which ends the file. Sizes are taken from the directory (torch writes none into the local headers), and
each local header must agree with the directory on all other fields.

Reference: PKWARE's APPNOTE.TXT; torch's caffe2/serialize/inline_container.cc.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from ...errors import HostileCheckpoint
from ...values.source import ByteSource
from ...values.span import Span
from .directory import Directory
from .extra import read_extra, widened

MAX_NAME = 4096
"""Bytes of a record's name, the root folder included."""

_CENTRAL = Struct("<4s4xHH4xIIIHHHH2xII")
_LOCAL = Struct("<4s2xHH4xIIIHH")
_DESCRIPTOR = Struct("<4sIII")
_DESCRIPTOR64 = Struct("<4sIQQ")
_U32_MAX = 0xFFFFFFFF

_UTF8 = 0x0800
_HAS_DESCRIPTOR = 0x0008
_KNOWN_FLAGS = _UTF8 | _HAS_DESCRIPTOR | 0x0006
"""Flags for UTF-8 names, descriptors, and (two bits) the effort of deflating."""
_ENCRYPTED_FLAGS = 0x2041
_STORED, _DEFLATED = 0, 8
_UNPLAIN = 0x10 | 0x08
"""DOS attributes: a folder, a volume. torch's reader leaves the tensor of such a record uninitialised."""
_FILE_TYPES = frozenset({0, 0o10})
"""A Unix mode's upper bits: unknown, or a regular file."""


class Record(NamedTuple):
    """A record's bytes at ``[start, end)``; ``crc32`` is from the directory.

    ``inflated`` is the inflated size of a deflated record: only a program's text may be deflated.
    """

    start: int
    end: int
    crc32: int
    inflated: int | None = None

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


class Entry(NamedTuple):
    """A record's entry in the directory; ``header`` is the offset of its local header."""

    name: bytes
    flags: int
    method: int
    crc32: int
    packed: int
    size: int
    header: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith(b"/")

    @property
    def inflated(self) -> int | None:
        """Inflated size of a deflated record, None for a stored one."""
        return self.size if self.method == _DEFLATED else None

    def refused(self, rule: str, what: str) -> HostileCheckpoint:
        shown = self.name[:200].decode("utf-8", "replace")
        return refused(rule, f"record {shown!r} {what}", self.header)


def read_records(
    data: ByteSource, directory: Directory, entries: bytes, *, folders: bool = False
) -> Iterator[tuple[Entry, Record]]:
    """Yield all records in the order of the file. ``entries`` are the bytes of the directory. No record's content is
    read. With ``folders``, a record may be a folder, which has no bytes. Raises HostileCheckpoint for a broken rule.
    """
    pos = end_of_last = 0
    for _ in range(directory.count):
        entry, pos = _read_entry(entries, pos, folders=folders)
        start, end_of_last = _place(data, entry, end_of_last, directory.start)
        yield entry, Record(start, start + entry.packed, entry.crc32, entry.inflated)
    if pos != len(entries):
        raise refused("zip-directory", "the directory is longer than its records", directory.start + pos)
    if end_of_last != directory.start:
        raise refused("zip-gap", "bytes before the directory belong to no record", end_of_last)


def names_in(directory: Directory, entries: bytes) -> Iterator[bytes]:
    """Yield the names of all records; the rest of the file is not checked. Raises HostileCheckpoint."""
    pos = 0
    for _ in range(directory.count):
        entry, pos = _read_entry(entries, pos, folders=True)
        yield entry.name


def refused(rule: str, detail: str, pos: int) -> HostileCheckpoint:
    """Return the error for a broken zip."""
    return HostileCheckpoint(f"the zip file is damaged or forged: {detail}", rule=rule, where=f"byte {pos}")


def _read_entry(entries: bytes, pos: int, *, folders: bool) -> tuple[Entry, int]:
    """Read the directory's entry at ``pos``; return the next entry's position too."""
    name_at = pos + _CENTRAL.size
    if name_at > len(entries):
        raise refused("zip-directory", "the directory is truncated", pos)
    (
        signature, flags, method, crc32, packed, size, name_size, extra_size, comment, disk, attributes, header
    ) = _CENTRAL.unpack_from(entries, pos)  # fmt: skip
    extra_at = name_at + name_size
    next_at = extra_at + extra_size
    if signature != b"PK\1\2" or next_at > len(entries) or comment or disk:
        raise refused("zip-directory", "a record's entry in the directory is broken", pos)
    entry = Entry(entries[name_at:extra_at], flags, method, crc32, packed, size, header)
    if extra_size:
        zip64 = read_extra(entries[extra_at:next_at], entry.refused)
        size, packed, header = widened(zip64, (size, packed, header), entry.refused)
        entry = entry._replace(size=size, packed=packed, header=header)
    is_folder = folders and entry.is_folder and not (packed or size)
    if not is_folder and (attributes & _UNPLAIN or attributes >> 28 not in _FILE_TYPES):
        raise entry.refused("zip-attributes", "is not marked as a plain file")
    if flags & _ENCRYPTED_FLAGS:
        raise entry.refused("zip-encrypted", "is encrypted")
    if flags & ~_KNOWN_FLAGS:
        raise entry.refused("zip-flags", f"has unknown flags, {flags:#06x}")
    if method not in {_STORED, _DEFLATED} or (method == _STORED and packed != size):
        raise entry.refused("zip-method", "has an unknown compression method")
    return entry, next_at


def name_of(entry: Entry) -> str:
    """Return a record's name as text."""
    if len(entry.name) > MAX_NAME:
        raise entry.refused("zip-name", f"has a name of {len(entry.name)} bytes; at most {MAX_NAME} are allowed")
    try:
        path = entry.name.decode("utf-8")
    except UnicodeDecodeError:
        raise entry.refused("zip-name", "has a name that is not valid UTF-8") from None
    if not entry.flags & _UTF8 and not path.isascii():
        raise entry.refused("zip-name", "has a non-ASCII name without the UTF-8 flag")
    return path


def _place(data: ByteSource, entry: Entry, expected: int, limit: int) -> tuple[int, int]:
    """Return the start of a record's data, and the end of its data and descriptor.

    ``expected`` is the required start of its local header: the end of the record before. ``limit`` is the directory.
    """
    if entry.header != expected:
        rule = "zip-gap" if entry.header > expected else "zip-overlap"
        raise entry.refused(rule, f"does not start where the one before it ends, at byte {expected}")
    name_at = expected + _LOCAL.size
    if name_at > limit:
        raise entry.refused("zip-overlap", "overlaps the directory")
    signature, flags, method, crc32, packed, size, name_size, extra_size = _LOCAL.unpack(
        data[expected : expected + _LOCAL.size]
    )
    start = name_at + name_size + extra_size
    end = start + entry.packed
    if start > limit:
        raise entry.refused("zip-overlap", "overlaps the directory")
    name_and_extra = bytes(data[name_at:start])
    if signature != b"PK\3\4" or name_and_extra[:name_size] != entry.name:
        raise entry.refused("zip-local", "has another name in its local header")
    if flags != entry.flags or method != entry.method:
        raise entry.refused("zip-local", "has other flags or another method in its local header")
    zip64 = read_extra(name_and_extra[name_size:], entry.refused) if extra_size else None
    if crc32 or packed or size or not flags & _HAS_DESCRIPTOR:  # otherwise the descriptor has them
        if _U32_MAX in (packed, size):
            size, packed, _ = widened(zip64, (size, packed, 0), entry.refused)
        if (crc32 or entry.crc32, packed, size) != (entry.crc32, entry.packed, entry.size):
            raise entry.refused("zip-local", "has another size or CRC32 in its local header")
    if flags & _HAS_DESCRIPTOR:
        form = _DESCRIPTOR64 if entry.size >= _U32_MAX or entry.header >= _U32_MAX else _DESCRIPTOR
        end += form.size
        if end <= limit and form.unpack(data[end - form.size : end]) != (
            b"PK\7\10",
            entry.crc32,
            entry.packed,
            entry.size,
        ):
            raise entry.refused("zip-descriptor", "has an invalid data descriptor")
    if end > limit:
        raise entry.refused("zip-overlap", "overlaps the directory")
    return start, end
