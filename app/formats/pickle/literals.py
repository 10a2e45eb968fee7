"""Readers of opcodes with a literal value: numbers, strings, bytes.

Each reader takes the pickle and the position behind its opcode, and returns the value and the position behind it. A
declared length is checked against the remaining bytes before any allocation. A value that cannot be decoded raises
ValueError (UnicodeDecodeError is one); a value that reaches beyond the end raises Broken.
"""

import codecs
import re
from collections.abc import Callable
from struct import Struct

from . import opcodes as op
from .broken import Broken
from .nodes import Node

Reader = Callable[[bytes, int], tuple[Node, int]]


read_u16 = Struct("<H").unpack_from
read_i32 = Struct("<i").unpack_from
read_u32 = Struct("<I").unpack_from
read_u64 = Struct("<Q").unpack_from
read_f64 = Struct(">d").unpack_from

_LENGTHS = {1: Struct("<B").unpack_from, 4: read_u32, 8: read_u64}


MAX_DIGITS = 4_300
"""Characters of a number in decimal: Python's own limit on digits. The ``repr`` of a float takes 24."""

MAX_INTEGER = 4_096
"""Bytes of an integer. torch's restricted unpickler reads 255."""

_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*+)")
_FLOAT = re.compile(rb"-?(?:[0-9]++(?:\.[0-9]*+)?(?:e[-+]?[0-9]++)?|inf|nan)")
"""Floats as every Python writes them. Python's unpicklers differ on other numbers: 010, 0x10, 1_000."""


def beyond_the_end() -> Broken:
    return Broken("length", "a value extends beyond the end of the pickle")


def line(data: bytes, pos: int) -> tuple[bytes, int]:
    """Read a newline-terminated argument, without its newline."""
    end = data.find(b"\n", pos)
    if end < 0:
        raise beyond_the_end()
    return data[pos:end], end + 1


def counted(data: bytes, pos: int, width: int) -> tuple[bytes, int]:
    """Read bytes after their length, which is ``width`` bytes, little-endian, unsigned."""
    (length,) = _LENGTHS[width](data, pos)
    pos += width
    if length > len(data) - pos:
        raise beyond_the_end()
    return data[pos : pos + length], pos + length


def _bytes(width: int) -> Reader:
    return lambda data, pos: counted(data, pos, width)


def _text(width: int) -> Reader:
    def read(data: bytes, pos: int) -> tuple[str, int]:
        raw, pos = counted(data, pos, width)
        return raw.decode("utf-8", "surrogatepass"), pos

    return read


def _python2_string(raw: bytes) -> str | bytes:
    """Decode a Python 2 str as utf-8, like torch.load; keep other bytes, like ``encoding="bytes"``."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _string(width: int) -> Reader:
    def read(data: bytes, pos: int) -> tuple[str | bytes, int]:
        raw, pos = counted(data, pos, width)
        return _python2_string(raw), pos

    return read


def _quoted_string(data: bytes, pos: int) -> tuple[str | bytes, int]:
    raw, pos = line(data, pos)
    if len(raw) < 2 or raw[0] != raw[-1] or raw[0] not in b"\"'":
        raise ValueError("a STRING without quotes")
    return _python2_string(codecs.escape_decode(raw[1:-1])[0]), pos


def _bytearray(data: bytes, pos: int) -> tuple[bytearray, int]:
    raw, pos = counted(data, pos, 8)
    return bytearray(raw), pos


def _long(width: int) -> Reader:
    def read(data: bytes, pos: int) -> tuple[int, int]:
        raw, pos = counted(data, pos, width)
        if len(raw) > MAX_INTEGER:
            raise ValueError(f"an integer of {len(raw):,} bytes; at most {MAX_INTEGER:,} are allowed")
        return int.from_bytes(raw, "little", signed=True), pos

    return read


def _check_number(raw: bytes, form: re.Pattern[bytes]) -> None:
    if len(raw) > MAX_DIGITS:
        raise ValueError(f"a number of {len(raw):,} characters; at most {MAX_DIGITS:,} are allowed")
    if not form.fullmatch(raw):
        raise ValueError("a number that is not a plain decimal")


def decimal(raw: bytes) -> int:
    _check_number(raw, _INTEGER)
    return int(raw)


def _decimal_int(data: bytes, pos: int) -> tuple[int, int]:
    raw, pos = line(data, pos)
    if raw in {b"00", b"01"}:  # False and True in protocols 0 and 1
        return raw == b"01", pos
    return decimal(raw), pos


def _decimal_long(data: bytes, pos: int) -> tuple[int, int]:
    raw, pos = line(data, pos)
    return decimal(raw.removesuffix(b"L")), pos


def _decimal_float(data: bytes, pos: int) -> tuple[float, int]:
    raw, pos = line(data, pos)
    _check_number(raw, _FLOAT)
    return float(raw), pos


def _escaped_text(data: bytes, pos: int) -> tuple[str, int]:
    raw, pos = line(data, pos)
    return codecs.raw_unicode_escape_decode(raw)[0], pos  # raw.decode would import the codec


READERS: dict[int, Reader] = {
    op.BINFLOAT: lambda data, pos: (read_f64(data, pos)[0], pos + 8),
    op.LONG1: _long(1),
    op.LONG4: _long(4),
    op.BINUNICODE: _text(4),
    op.SHORT_BINUNICODE: _text(1),
    op.BINUNICODE8: _text(8),
    op.SHORT_BINBYTES: _bytes(1),
    op.BINBYTES: _bytes(4),
    op.BINBYTES8: _bytes(8),
    op.BYTEARRAY8: _bytearray,
    op.SHORT_BINSTRING: _string(1),
    op.BINSTRING: _string(4),
    op.STRING: _quoted_string,
    op.UNICODE: _escaped_text,
    op.INT: _decimal_int,
    op.LONG: _decimal_long,
    op.FLOAT: _decimal_float,
}
"""Reader by opcode. BININT, BININT1 and BININT2 are read in the machine's own loop."""
