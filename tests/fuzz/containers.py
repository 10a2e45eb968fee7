"""Files taken apart so that what lies inside can be changed, and put back with every CRC32, offset and length right."""

import struct
import zlib

from tests.formats.zips import Entry, Zip

_END = struct.Struct("<4sHHHHIIH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_DEFLATED = 8
_MOST_INFLATED = 10_000


def zip_of(data: bytes) -> Zip | None:
    """The records of a zip whose directory can be followed, without padding and inflated; None of anything else."""
    if data[:4] != b"PK\3\4" or len(data) < _END.size:
        return None
    signature, _, _, _, count, _, at, _ = _END.unpack(data[-_END.size :])
    if signature != b"PK\5\6" or count > 1000:
        return None
    entries = []
    for _ in range(count):
        if len(data) < at + _CENTRAL.size:
            return None
        (
            signature, _, _, flags, method, _, _, crc32, packed, size, name_size, extra_size, comment_size, _, _,
            attributes, header,
        ) = _CENTRAL.unpack_from(data, at)  # fmt: skip
        if signature != b"PK\1\2" or len(data) < header + 30:
            return None
        name_at = at + _CENTRAL.size
        name = data[name_at : name_at + name_size]
        local_name, local_extra = struct.unpack_from("<HH", data, header + 26)
        start = header + 30 + local_name + local_extra
        content = data[start : start + packed]
        extra = data[name_at + name_size : name_at + name_size + extra_size]
        if method == _DEFLATED:
            inflated = _inflated(content, size)
            if inflated is not None:
                content, method, packed, crc32 = inflated, 0, size, zlib.crc32(inflated)
        told: dict[str, int | bytes] = {"attributes": attributes} if attributes else {}
        if size != packed:
            told["size"] = size
        local = data[start - local_extra : start]
        entries.append(
            Entry(
                name,
                content,
                extra=b"" if local.startswith(b"FB") else local,
                flags=flags,
                method=method,
                crc32=None if crc32 == zlib.crc32(content) else crc32,
                central_extra=extra,
                central=told,
            )
        )
        at = name_at + name_size + extra_size + comment_size
    return Zip(entries, zip64=b"PK\6\7" in data[-_END.size - 20 :])


def _inflated(content: bytes, size: int) -> bytes | None:
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, min(size, _MOST_INFLATED))
    except zlib.error:
        return None
    return inflated if len(inflated) == size else None


def pickle_of(made: Zip) -> Entry | None:
    return next((entry for entry in made.entries if entry.name.endswith(b"/data.pkl")), None)


def header_of(data: bytes) -> bytes | None:
    """A safetensors file's header; None of anything else."""
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length] if data[8:9] == b"{" and length <= len(data) - 8 else None


def with_header(data: bytes, old: bytes, new: bytes) -> bytes:
    return struct.pack("<Q", len(new)) + new + data[8 + len(old) :]
