"""Search for a zip's directory by the end records, which must end exactly where the file does."""

from dataclasses import dataclass
from struct import Struct

from ...errors import HostileCheckpoint, NotACheckpoint
from ...values.source import ByteSource
from ..foreign import shifted_zip

MAX_RECORDS = 500_000
MAX_DIRECTORY = 160 * 1024 * 1024
"""Bytes: room for as many records under a root folder with a name as long as file systems allow."""

_END = Struct("<4sHHHHIIH")
_LOCATOR64 = Struct("<4sIQI")
_END64 = Struct("<4sQHHIIQQQQ")
_MIN_ENTRY = 46
_U16_MAX = 0xFFFF
_U32_MAX = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Directory:
    """Bytes ``[start, end)`` of the file, describing ``count`` records."""

    start: int
    end: int
    count: int


def find_directory(data: ByteSource) -> Directory:
    """Find the directory. Raises NotACheckpoint for a file without a zip's end, HostileCheckpoint for a broken rule."""
    end_at = len(data) - _END.size
    if end_at < 0 or bytes(data[end_at : end_at + 4]) != b"PK\5\6":
        detail = "the file starts like a zip file but does not end like one: it was truncated, or bytes were appended"
        raise NotACheckpoint(detail, rule="zip-end", where=f"byte {max(end_at, 0)}")
    _, disk, first_disk, count_here, count, size, start, comment = _END.unpack(data[end_at : end_at + _END.size])
    if disk or first_disk or count_here != count or comment:
        raise _refused("zip-end", "the end record refers to other disks or a comment", end_at)
    directory = Directory(start, start + size, count)
    end = end_at
    locator_at = end_at - _LOCATOR64.size
    if locator_at >= 0 and bytes(data[locator_at : locator_at + 4]) == b"PK\6\7":
        directory, end = _read_end64(data, locator_at)
        narrow = (
            min(directory.count, _U16_MAX),
            min(directory.end - directory.start, _U32_MAX),
            min(directory.start, _U32_MAX),
        )
        if (count, size, start) != narrow:
            raise _refused("zip-end", "the two end records contradict each other", end_at)
    found = end - (directory.end - directory.start)
    if directory.start < found and bytes(data[found : found + 4]) == b"PK\1\2":
        raise _refused("zip-directory", shifted_zip(), end)
    if directory.end != end:
        raise _refused("zip-directory", "the directory does not end where the end records start", end)
    if directory.count > MAX_RECORDS:
        raise _refused("zip-records", f"it has {directory.count} records; at most {MAX_RECORDS} are allowed", end)
    if directory.end - directory.start > MAX_DIRECTORY:
        detail = f"its directory has {directory.end - directory.start} bytes; at most {MAX_DIRECTORY} are allowed"
        raise _refused("zip-records", detail, directory.start)
    if not directory.count or directory.end - directory.start < directory.count * _MIN_ENTRY:
        raise _refused("zip-directory", "the directory is too short for its records", directory.start)
    return directory


def _read_end64(data: ByteSource, locator_at: int) -> tuple[Directory, int]:
    """Read the zip64 end record, just before its locator; return the directory and the record's start."""
    _, disk, end, disks = _LOCATOR64.unpack(data[locator_at : locator_at + _LOCATOR64.size])
    found = locator_at - _END64.size
    if end < found and bytes(data[found : found + 4]) == b"PK\6\6":
        raise _refused("zip-end", shifted_zip(), locator_at)
    if end != found or end < 0 or disk or disks > 1:
        raise _refused("zip-end", "the zip64 end record is not where its locator says", locator_at)
    signature, length, _, _, disk, first_disk, count_here, count, size, start = _END64.unpack(
        data[end : end + _END64.size]
    )
    if signature != b"PK\6\6" or length != _END64.size - 12 or disk or first_disk or count_here != count:
        raise _refused("zip-end", "the zip64 end record is broken", end)
    return Directory(start, start + size, count), end


def _refused(rule: str, detail: str, pos: int) -> HostileCheckpoint:
    return HostileCheckpoint(f"the zip file is damaged or forged: {detail}", rule=rule, where=f"byte {pos}")
