"""Files in torch's format from before 1.6, put together part by part, honest unless told otherwise."""

import pickle
import struct
from collections.abc import Sequence
from typing import Any

MAGIC = 0x1950A86A20F9469CFC6C
SYS_INFO = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}

FLOATS = b"ctorch\nFloatStorage\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor\n"


def counted(data: bytes, itemsize: int = 4) -> bytes:
    """A storage as it lies in such a file."""
    return struct.pack("<q", len(data) // itemsize) + data


def legacy(
    obj: bytes,
    keys: Any = ("0",),
    storages: Sequence[bytes] = (),
    *,
    magic: Any = MAGIC,
    version: Any = 1001,
    sys_info: Any = SYS_INFO,
    after: bytes = b"",
) -> bytes:
    """``obj`` is the object's pickle; ``storages`` are written as they are."""
    head = b"".join(pickle.dumps(part, 2) for part in (magic, version, sys_info))
    listed = pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2)
    return head + obj + listed + b"".join(storages) + after


def text(value: str) -> bytes:
    """As Python 2 wrote its str."""
    data = value.encode("latin-1")
    return b"U" + bytes([len(data)]) + data


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def storage(key: str, numel: int, view: bytes = b"N", *, cls: bytes = FLOATS, location: str = "cpu") -> bytes:
    """The opcodes that name a storage."""
    return b"(" + text("storage") + cls + text(key) + text(location) + integer(numel) + view + b"tQ"


def view(key: str, offset: int, numel: int) -> bytes:
    return text(key) + integer(offset) + integer(numel) + b"\x87"


def tensor(storage: bytes, offset: int = 0, size: int = 2, stride: int = 1) -> bytes:
    """The opcodes of a one-dimensional ``_rebuild_tensor``, as torch 0.3 wrote it."""
    return REBUILD + b"(" + storage + integer(offset) + integer(size) + b"\x85" + integer(stride) + b"\x85tR"


def mapping(**values: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in values.items()) + b"u."
