"""Extra fields of a record's two headers: tags with lengths, most of them padding or times.

Fields that some readers obey and others skip give a record two meanings, and are refused.

Reference: PKWARE's APPNOTE.TXT, 4.5; Info-ZIP's extrafld.txt.
"""

from collections.abc import Callable
from struct import Struct

from ...errors import HostileCheckpoint

ZIP64 = 0x0001
_FORBIDDEN = {0x0017: "encrypts it", 0x6375: "comments on it", 0x7075: "renames it", 0x9901: "encrypts it"}

MAX_FIELDS = 16
"""Fields of one header. torch writes one or two; a header has room for 16,000 empty ones."""

_HEAD = Struct("<HH")
_U64 = Struct("<Q")
_U32_MAX = 0xFFFFFFFF

Refused = Callable[[str, str], HostileCheckpoint]
"""Makes the error for a rule and a record's fault."""


def read_extra(extra: bytes, refused: Refused) -> bytes | None:
    """Return the zip64 field, if any. Raises HostileCheckpoint (``zip-extra``) for fields readable in two ways."""
    if len(extra) >= _HEAD.size:
        tag, length = _HEAD.unpack_from(extra)
        if _HEAD.size + length == len(extra) and tag not in _FORBIDDEN:  # one field, as torch writes it
            return extra[_HEAD.size :] if tag == ZIP64 else None
    fields: dict[int, bytes] = {}
    pos = 0
    while pos < len(extra):
        if pos + _HEAD.size > len(extra):
            raise refused("zip-extra", "has a truncated extra field")
        tag, length = _HEAD.unpack_from(extra, pos)
        pos += _HEAD.size + length
        if pos > len(extra):
            raise refused("zip-extra", "has a truncated extra field")
        if tag in _FORBIDDEN:
            raise refused("zip-extra", f"has an extra field that {_FORBIDDEN[tag]}")
        if len(fields) == MAX_FIELDS:
            raise refused("zip-extra", f"has more than {MAX_FIELDS} extra fields")
        if tag in fields:
            raise refused("zip-extra", f"has the extra field {tag:#06x} twice")
        fields[tag] = extra[pos - length : pos]
    return fields.get(ZIP64)


def widened(zip64: bytes | None, sizes: tuple[int, int, int], refused: Refused) -> tuple[int, int, int]:
    """Replace each of ``sizes`` that did not fit into 32 bits by its value from the zip64 field.

    The field must have exactly these values. Without the field, sizes stay unchanged.
    """
    if zip64 is None:
        return sizes
    if len(zip64) != _U64.size * sizes.count(_U32_MAX):
        raise refused("zip-extra", "has a zip64 field that does not fit its sizes")
    wide = iter([value for (value,) in _U64.iter_unpack(zip64)])
    first, second, third = (next(wide) if size == _U32_MAX else size for size in sizes)
    return first, second, third
