"""The base of every class of the corpus: a file with its expected outcome, and honest files to corrupt.

The honest checkpoint is ``{"model": {"weight": eight float32}, "x": payload}``, in either container.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.formats import legacy_files
from tests.formats.zips import Entry, Zip
from tests.hostile.make import HOOKS, integer, integers, text


@dataclass(frozen=True, slots=True)
class Hostile:
    """A file, and the rules it may be refused under (where there is no rule, the code). Without any it is stored,
    inert; ``either``: it is refused under whichever rule, or stored. ``names`` is code that it names: it is stored with
    the warning that it does.
    """

    name: str
    data: bytes
    rules: frozenset[str] = frozenset()
    either: bool = False
    names: frozenset[str] = frozenset()


Files = Iterator[Hostile]


def refused(name: str, data: bytes, *rules: str) -> Hostile:
    assert rules, name
    return Hostile(name, data, frozenset(rules))


def inert(name: str, data: bytes, *names: str) -> Hostile:
    return Hostile(name, data, names=frozenset(names))


def survived(name: str, data: bytes) -> Hostile:
    return Hostile(name, data, either=True)


FLOATS = struct.pack("<8f", *range(8))


def storage(numel: int = 8, key: str = "0", kind: str = "torch\nFloatStorage", location: str = "cpu", end: bytes = b""):
    """The opcodes of a persistent id; ``end`` is what a legacy one has more."""
    pid = text("storage") + f"c{kind}\n".encode() + text(key) + text(location) + integer(numel)
    return b"(" + pid + end + b"tQ"


def tensor(of: bytes, shape: tuple[int, ...] = (8,), stride: tuple[int, ...] = (1,), offset: int = 0) -> bytes:
    arguments = of + integer(offset) + integers(shape) + integers(stride) + b"\x89" + HOOKS
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def pickle(weight: bytes, payload: bytes, protocol: int = 2) -> bytes:
    """The honest checkpoint's."""
    proto = bytes([0x80, protocol]) if protocol >= 2 else b""
    return proto + b"}(" + text("model") + b"}" + text("weight") + weight + b"s" + text("x") + payload + b"u."


def entries(data: bytes, records: dict[str, bytes] | None = None) -> list[Entry]:
    """The records of a torch zip around a pickle."""
    rest = {"byteorder": b"little", "data/0": FLOATS, "version": b"3\n"} if records is None else records
    made = [Entry(b"r/data.pkl", data)]
    return made + [Entry(b"r/" + name.encode(), body, flags=0x0808 if body else 0x0800) for name, body in rest.items()]


def zip_of(data: bytes, records: dict[str, bytes] | None = None) -> bytes:
    return Zip(entries(data, records)).build()


def zipped(payload: bytes, protocol: int = 2) -> bytes:
    return zip_of(pickle(tensor(storage()), payload, protocol))


def legacy_of(data: bytes) -> bytes:
    return legacy_files.legacy(data, ("0",), [legacy_files.counted(FLOATS)])


def legacy(payload: bytes, protocol: int = 2) -> bytes:
    return legacy_of(pickle(tensor(storage(end=b"N")), payload, protocol))


CONTAINERS: dict[str, Callable[..., bytes]] = {"zip": zipped, "legacy": legacy}
AROUND: dict[str, Callable[[bytes], bytes]] = {"zip": zip_of, "legacy": legacy_of}
"""Of a whole pickle."""
NOTHING = b"N"
HONEST = {"zip": zipped(NOTHING), "legacy": legacy(NOTHING)}


def safetensors(header: bytes, data: bytes = FLOATS, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data
