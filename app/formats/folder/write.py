"""Writer of a folder's zip, for files that arrive one after another: sizes and checksums follow each file's bytes.

Reference: PKWARE's APPNOTE.TXT.
"""

import zlib
from struct import Struct
from typing import NamedTuple

_VERSION, _VERSION64 = 20, 45
"""Zip versions that a reader needs; 45 for numbers of 64 bits."""
_FLAGS = 0x0808
"""A descriptor follows the data; the name is UTF-8."""
_DAY_ONE = 0x21
"""1980-01-01, so that the zip does not depend on when it was made."""
_MODE = 0o100644 << 16
_PADDING = 0x4246
"""The extra field that torch pads with."""
_ALIGNMENT = 64
_FULL = 0xFFFFFFFF
_FULL16 = 0xFFFF

_LOCAL = Struct("<4sHHHHHIIIHH")
_CENTRAL = Struct("<4sHHHHHHIIIHHHHHII")
_DESCRIPTOR, _DESCRIPTOR64 = Struct("<4sIII"), Struct("<4sIQQ")
_END64, _LOCATOR64, _END = Struct("<4sQHHIIQQQQ"), Struct("<4sIQI"), Struct("<4sHHHHIIH")


class _Entry(NamedTuple):
    name: bytes
    header: int
    size: int
    crc32: int


class FolderWriter:
    """Makes the bytes around each file: ``begin``, then its own bytes, each passed to ``add``, then ``end``; after the
    last file ``finish``.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._position = 0
        self._entry = _Entry(b"", 0, 0, 0)

    def begin(self, path: str) -> bytes:
        """Return the header of a file."""
        name = path.encode()
        self._entry = _Entry(name, self._position, 0, 0)
        extra = _padding(self._position + _LOCAL.size + len(name))
        head = _LOCAL.pack(b"PK\3\4", _VERSION, _FLAGS, 0, 0, _DAY_ONE, 0, 0, 0, len(name), len(extra)) + name + extra
        self._position += len(head)
        return head

    def add(self, data: bytes) -> None:
        """Take note of a file's next bytes."""
        entry = self._entry
        self._entry = entry._replace(size=entry.size + len(data), crc32=zlib.crc32(data, entry.crc32))
        self._position += len(data)

    def end(self) -> bytes:
        """Return what follows a file."""
        entry = self._entry
        self._entries.append(entry)
        form = _DESCRIPTOR64 if entry.size >= _FULL or entry.header >= _FULL else _DESCRIPTOR
        tail = form.pack(b"PK\7\10", entry.crc32, entry.size, entry.size)
        self._position += len(tail)
        return tail

    def finish(self) -> bytes:
        """Return the directory."""
        directory = b"".join(map(_central, self._entries))
        count, size, start = len(self._entries), len(directory), self._position
        end64 = _END64.pack(b"PK\6\6", 44, _VERSION64, _VERSION64, 0, 0, count, count, size, start)
        locator = _LOCATOR64.pack(b"PK\6\7", 0, start + size, 1)
        few = min(count, _FULL16)
        end = _END.pack(b"PK\5\6", 0, 0, few, few, min(size, _FULL), min(start, _FULL), 0)
        return directory + end64 + locator + end


def _central(entry: _Entry) -> bytes:
    wide = [*([entry.size] * 2 if entry.size >= _FULL else []), *([entry.header] if entry.header >= _FULL else [])]
    extra = Struct(f"<HH{len(wide)}Q").pack(1, 8 * len(wide), *wide) if wide else b""
    size = min(entry.size, _FULL)
    version = _VERSION64 if wide else _VERSION
    unix = 3 << 8
    return (
        _CENTRAL.pack(
            b"PK\1\2", unix | version, version, _FLAGS, 0, 0, _DAY_ONE, entry.crc32, size, size,
            len(entry.name), len(extra), 0, 0, 0, _MODE, min(entry.header, _FULL),
        )
        + entry.name
        + extra
    )  # fmt: skip


def _padding(position: int) -> bytes:
    """Return an extra field after which data are aligned, so that they can be mapped into memory."""
    length = -(position + 4) % _ALIGNMENT
    return Struct("<HH").pack(_PADDING, length) + bytes(length)
