"""Zip files written field by field, honest unless told otherwise."""

import struct
import zlib
from dataclasses import dataclass, field

U32_MAX = 0xFFFFFFFF


@dataclass
class Entry:
    """One record. ``local`` and ``central`` override fields of its headers by name."""

    name: bytes
    data: bytes = b""
    extra: bytes = b"FB\0\0"
    flags: int = 0x0808
    method: int = 0
    crc32: int | None = None
    descriptor: bytes | None = None
    central_extra: bytes = b""
    before: bytes = b""
    local: dict[str, int | bytes] = field(default_factory=dict)
    central: dict[str, int | bytes] = field(default_factory=dict)


@dataclass
class Zip:
    """``directory`` and ``end`` come after the entries; fields override what would be honest."""

    entries: list[Entry]
    before_directory: bytes = b""
    after_directory: bytes = b""
    after: bytes = b""
    comment: bytes = b""
    zip64: bool = True
    end: dict[str, int] = field(default_factory=dict)
    end64: dict[str, int] = field(default_factory=dict)
    locator: dict[str, int] = field(default_factory=dict)

    def build(self) -> bytes:
        out, directory = bytearray(), bytearray()
        for entry in self.entries:
            out += entry.before
            header = len(out)
            crc32 = zlib.crc32(entry.data) if entry.crc32 is None else entry.crc32
            central = {
                "signature": b"PK\1\2", "flags": entry.flags, "method": entry.method, "crc32": crc32,
                "name": entry.name, "packed": len(entry.data), "size": len(entry.data), "comment": 0, "disk": 0,
                "header": header, "attributes": 0, **entry.central,
            }  # fmt: skip
            told = {name: 0 if entry.flags & 8 else central[name] for name in ("crc32", "packed", "size")}
            local = {
                "signature": b"PK\3\4",
                "flags": entry.flags,
                "method": entry.method,
                "name": entry.name,
                **told,
                **entry.local,
            }
            out += struct.pack(
                "<4sHHHHHIIIHH",
                local["signature"], 0, local["flags"], local["method"], 0, 0, local["crc32"], local["packed"],
                local["size"], len(local["name"]), len(entry.extra),
            )  # fmt: skip
            out += local["name"] + entry.extra + entry.data
            if entry.descriptor is not None:
                out += entry.descriptor
            elif entry.flags & 8:
                out += struct.pack("<4sIII", b"PK\7\10", crc32, len(entry.data), len(entry.data))
            directory += struct.pack(
                "<4sHHHHHHIIIHHHHHII",
                central["signature"], 0, 0, central["flags"], central["method"], 0, 0, central["crc32"],
                central["packed"], central["size"], len(central["name"]), len(entry.central_extra), central["comment"],
                central["disk"], 0, central["attributes"], central["header"],
            )  # fmt: skip
            directory += central["name"] + entry.central_extra
        out += self.before_directory
        start, size, count = len(out), len(directory), len(self.entries)
        out += directory + self.after_directory
        if self.zip64:
            at = len(out)
            end64 = {"size": 44, "disk": 0, "here": count, "count": count, "length": size, "start": start, **self.end64}
            out += struct.pack(
                "<4sQHHIIQQQQ", b"PK\6\6", end64["size"], 0x031E, 45, end64["disk"], 0, end64["here"], end64["count"],
                end64["length"], end64["start"],
            )  # fmt: skip
            locator = {"disk": 0, "at": at, "disks": 1, **self.locator}
            out += struct.pack("<4sIQI", b"PK\6\7", locator["disk"], locator["at"], locator["disks"])
        end = {"disk": 0, "here": count, "count": count, "length": size, "start": start, **self.end}
        out += struct.pack(
            "<4sHHHHIIH", b"PK\5\6", end["disk"], 0, end["here"], end["count"], end["length"], end["start"],
            len(self.comment),
        )  # fmt: skip
        return bytes(out) + self.comment + self.after


def zip64_extra(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)
