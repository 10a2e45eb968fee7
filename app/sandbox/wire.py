"""Encoding of a call and its answer on the pipe: byte strings with their lengths, errors as JSON."""

import json
import struct
from collections.abc import Iterable

from .. import errors


def join_parts(parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
    return b"".join(piece for part in parts for piece in (struct.pack("<Q", len(part)), part))


def split_parts(data: memoryview) -> list[bytes]:
    parts = []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        parts.append(bytes(data[8 : 8 + length]))
        data = data[8 + length :]
    return parts


def error_to_bytes(error: errors.StateroomError) -> bytes:
    fields = {name: getattr(error, name) for name in ("rule", "where", "near") if hasattr(error, name)}
    return json.dumps({"class": type(error).__name__, "detail": error.detail, "code": error.code, **fields}).encode()


def error_from_bytes(data: bytes) -> errors.StateroomError:
    """Rebuild an error, with its code and fields."""
    fields = json.loads(data)
    kind, detail, code = getattr(errors, fields.pop("class")), fields.pop("detail"), fields.pop("code")
    error: errors.StateroomError = kind(detail, code=code) if kind is errors.SelectionError else kind(detail)
    error.code = code
    for name, value in fields.items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)
    return error
