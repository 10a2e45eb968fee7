"""Torch's format from before 1.6: heads, keys and storages that do not agree with the object."""

import pickle as stock
import struct

from tests.formats.legacy_files import MAGIC, SYS_INFO, counted, legacy, mapping, view
from tests.formats.legacy_files import storage as old_storage
from tests.formats.legacy_files import tensor as old_tensor
from tests.hostile.corpus.base import FLOATS, HONEST, NOTHING, Files, inert, pickle, refused, storage, tensor

OBJECT = pickle(tensor(storage(end=b"N")), NOTHING)
STORAGE = counted(FLOATS)


def files() -> Files:
    for magic in (0, MAGIC + 1, -MAGIC, str(MAGIC), float(MAGIC), None, [MAGIC], (MAGIC,), {MAGIC: 1}, True):
        yield refused(f"magic {magic!r}", legacy(OBJECT, ("0",), [STORAGE], magic=magic), "magic")
    for version in (0, 1000, 1002, "1001", 1001.0, None, True, [1001], 2**100):
        yield refused(f"version {version!r}"[:60], legacy(OBJECT, ("0",), [STORAGE], version=version), "version")
    for facts in (None, 1, "x", [], (), [SYS_INFO], b"x"):
        yield refused(
            f"facts {facts!r}"[:40], legacy(OBJECT, ("0",), [STORAGE], sys_info=facts), "sys-info", "plain-values"
        )
    for facts in ({}, {"little_endian": False}, {"protocol_version": 10**9}, {1: 2}, {"x": [[[]]]}):
        yield inert(f"facts {facts!r}"[:40], legacy(OBJECT, ("0",), [STORAGE], sys_info=facts))
    deep: list = []
    for _ in range(50):
        deep = [deep]
    yield refused("deep facts", legacy(OBJECT, ("0",), [STORAGE], sys_info={"x": deep}), "nesting")
    yield refused(
        "many facts", legacy(OBJECT, ("0",), [STORAGE], sys_info=dict.fromkeys(range(2000))), "opcodes", "stack-size"
    )
    yield from keys()
    yield from storages()
    yield from views()


def keys() -> Files:
    for listed in (
        [],
        ["1"],
        ["0", "0"],
        ["0", "1"],
        ["1", "0"],
        [0],
        [None],
        [b"0"],
        "0",
        None,
        {"0": 1},
        [["0"]],
        ["0 "],
        ["O"],
        [""],
        ["0"] * 1000,
        [("0",)],
        0,
    ):
        yield refused(
            f"keys {listed!r}"[:50],
            legacy(OBJECT, listed, [STORAGE]),
            "storage-keys",
            "storage-missing",
            "plain-values",
        )
    for after in (b"\0", b"\x80\x02N.", STORAGE, bytes(4096), HONEST["legacy"], HONEST["zip"]):
        yield refused(f"{len(after)} bytes behind it", legacy(OBJECT, ("0",), [STORAGE], after=after), "trailing-bytes")
    none = b"\x80\x02" + b"N."
    yield refused(
        "no keys at all", legacy(OBJECT, ("0",), [STORAGE]).replace(stock.dumps(["0"], 2), none), "storage-keys"
    )


def storages() -> Files:
    for count in (0, 1, 7, 9, 32, -1, -8, 2**31, 2**62, 2**63 - 1, -(2**63)):
        forged = struct.pack("<q", count) + FLOATS
        yield refused(f"a storage that says {count}", legacy(OBJECT, ("0",), [forged]), "storage-size", "truncated")
    for length in (0, 4, 8, 31):
        yield refused(f"{length} bytes of storage", legacy(OBJECT, ("0",), [STORAGE[: 8 + length]]), "truncated")
    for length in range(8):
        yield refused(f"{length} bytes of its count", legacy(OBJECT, ("0",), [STORAGE[:length]]), "truncated")
    for more in (1, 4, 1000):
        yield refused(f"{more} bytes more", legacy(OBJECT, ("0",), [STORAGE + bytes(more)]), "trailing-bytes")
    yield refused("big-endian counts", legacy(OBJECT, ("0",), [struct.pack(">q", 8) + FLOATS]), "storage-size")
    yield refused(
        "a storage of the size of the universe",
        legacy(pickle(tensor(storage(2**60, end=b"N")), NOTHING), ("0",), [STORAGE]),
        "truncated",
        "storage-size",
    )


def views() -> Files:
    """Parts of storages, as torch 0.1 to 0.3 wrote them."""

    def of(part: bytes, numel: int = 8) -> bytes:
        return legacy(mapping(w=old_tensor(old_storage("0", numel, part))), ("0",), [STORAGE])

    yield inert("a part", of(view("1", 2, 4)))
    for key, offset, numel in [
        ("1", -1, 2),
        ("1", 0, 9),
        ("1", 8, 1),
        ("1", 5, -1),
        ("1", 2**30, 2),
        ("1", 7, 1),
        ("0", 0, 8),
    ]:
        yield refused(
            f"part {key} at {offset} of {numel}",
            of(view(key, offset, numel)),
            "persistent-id",
            "storage-view",
            "tensor-extent",
        )
    for part in (b")", b"K\x01", b"(NNNt", b"]"):
        yield refused(f"a part that is {part!r}", of(part), "persistent-id")
    for what, whole in {"two parts of one key": (view("1", 0, 4), view("1", 2, 4))}.items():
        made = mapping(a=old_tensor(old_storage("0", 8, whole[0])), b=old_tensor(old_storage("0", 8, whole[1])))
        yield refused(what, legacy(made, ("0",), [STORAGE]), "persistent-id")
    alone = mapping(a=old_storage("0", 8, view("1", 0, 4)))
    yield refused("a part by itself", legacy(alone, ("0",), [STORAGE]), "storage-view")
    module = b"(" + b"U\x06module" + b"cm\nf\n" + b"U\x01f" + b"U\x01s" + b"tQ"
    yield inert(
        "a module with its source", legacy(mapping(w=old_tensor(old_storage("0", 8)), m=module), ("0",), [STORAGE])
    )
    nothing = b"(" + b"U\x06module" + b"NU\x01fU\x01stQ"
    yield refused(
        "a module of no class",
        legacy(mapping(w=old_tensor(old_storage("0", 8)), m=nothing), ("0",), [STORAGE]),
        "persistent-id",
    )
