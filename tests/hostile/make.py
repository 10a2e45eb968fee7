"""Hostile checkpoints, made field by field: nothing here is ever loaded by pickle or by torch."""

import struct
from collections.abc import Sequence

from tests.formats.zips import Entry, Zip


def checkpoint(pickle: bytes, records: dict[str, bytes] | None = None) -> bytes:
    """A zip that is honest in all but what its pickle says. ``records`` are storages by key."""
    entries = [Entry(b"archive/data.pkl", pickle)]
    for key, data in (records or {}).items():
        entries.append(Entry(f"archive/data/{key}".encode(), data, flags=0x0808 if data else 0x0800))
    return Zip([*entries, Entry(b"archive/version", b"3\n")]).build()


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def integers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(numel: int = 8, key: str = "0", kind: str = "torch\nFloatStorage", location: str = "cpu") -> bytes:
    """A persistent id, and the opcode that asks for it."""
    return b"(" + text("storage") + f"c{kind}\n".encode() + text(key) + text(location) + integer(numel) + b"tQ"


HOOKS = b"ccollections\nOrderedDict\n)R"


def tensor(
    shape: Sequence[int] = (2, 4),
    stride: Sequence[int] = (4, 1),
    offset: int = 0,
    of: bytes | None = None,
) -> bytes:
    """A call of ``_rebuild_tensor_v2``; its storage has 8 float32 unless ``of`` is another."""
    arguments = (of or storage()) + integer(offset) + integers(shape) + integers(stride) + b"\x89" + HOOKS
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def with_tensor(pickle: bytes) -> bytes:
    """A checkpoint ``{"weight": tensor, "x": pickle}``."""
    return checkpoint(b"\x80\x02}(" + text("weight") + tensor() + text("x") + pickle + b"u.", {"0": bytes(32)})


def of_tensor(pickle: bytes) -> bytes:
    """A checkpoint ``{"weight": pickle}`` with the storage that ``tensor`` views."""
    return checkpoint(b"\x80\x02}" + text("weight") + pickle + b"s.", {"0": bytes(32)})
