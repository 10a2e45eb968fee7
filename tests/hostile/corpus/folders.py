"""Folders: zips of files that lie about their places, their names or each other, and files in them that do."""

import json
import struct

from tests.formats.zips import Entry, Zip
from tests.hostile.corpus.base import (
    HONEST,
    Files,
    inert,
    pickle,
    refused,
    safetensors,
    storage,
    survived,
    tensor,
    zip_of,
)

MODEL = Entry(b"model.pt", HONEST["zip"])
ONE = safetensors(b'{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}')
OTHER = safetensors(b'{"b":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}')


def files() -> Files:
    yield inert("a folder", of(MODEL, Entry(b"config.json", b"{}")))
    yield inert("a folder in a folder", of(Entry(b"a/b/model.pt", HONEST["zip"])))
    yield inert("an entry for a folder", of(Entry(b"a/", flags=0x0800, central={"attributes": 0x10}), MODEL))
    yield refused("a folder with bytes", of(Entry(b"a/", b"x", central={"attributes": 0x10}), MODEL), "zip-attributes")
    yield from names()
    yield from layouts()
    yield from shards()
    yield from inside()
    yield from amounts()


def of(*entries: Entry) -> bytes:
    return Zip(list(entries)).build()


def names() -> Files:
    for name in (
        b"../x", b"a/../x", b"/x", b"a//x", b"./x", b"a/./x", b"a\\x", b"c:x", b"x\0y", b"\x1b[2J", b"a\nb", b"nul",
        b"a/CON.txt", b"x.", b"x ", b"x" * 256, b"/".join([b"y" * 200] * 6), b"..", b".", "a\u0000".encode(),
    ):  # fmt: skip
        yield refused(f"the path {name[:20]!r} ({len(name)})", of(MODEL, Entry(name, b"x")), "path")
    yield refused("a path that is not UTF-8", of(MODEL, Entry(b"\xff", b"x")), "zip-name")
    yield refused("a path in a code page", of(MODEL, Entry(b"\x81", b"x", flags=0x0008)), "zip-name")
    yield refused("an endless path", of(MODEL, Entry(b"a" * 60_000, b"x")), "zip-name")
    for one, other in (
        (b"a", b"a"), (b"a", b"A"), (b"a", b"a/b"), (b"a/b", b"a"), (b"a/b", b"A/c"),
        ("\u00e9".encode(), "e\u0301".encode()), (b"STRASSE", "stra\u00dfe".encode()), (b"K", "\u212a".encode()),
    ):  # fmt: skip
        yield refused(f"{one!r} beside {other!r}", of(MODEL, Entry(one, b"x"), Entry(other, b"y")), "path-clash")


def layouts() -> Files:
    two = Entry(b"config.json", b"{}")
    yield refused(
        "bytes between two files",
        of(MODEL, Entry(b"config.json", b"{}", before=b"junk")),
        "zip-gap",
        "zip-end",
        "zip-overlap",
    )
    yield refused(
        "another local name", of(MODEL, Entry(b"config.json", b"{}", local={"name": b"config.jsom"})), "zip-local"
    )
    yield refused(
        "a larger size",
        of(MODEL, Entry(b"config.json", b"{}", central={"size": 3, "packed": 3})),
        "zip-descriptor",
        "zip-overlap",
    )
    yield refused(
        "a file over the one before", of(MODEL, Entry(b"config.json", b"{}", central={"header": 0})), "zip-overlap"
    )
    yield refused(
        "a file over the directory",
        of(MODEL, Entry(b"config.json", b"{}", central={"size": 10**6, "packed": 10**6})),
        "zip-overlap",
    )
    yield refused(
        "a link", of(MODEL, Entry(b"link", b"/etc/passwd", central={"attributes": 0o120777 << 16})), "zip-attributes"
    )
    yield refused("a device", of(MODEL, Entry(b"null", b"", central={"attributes": 0o020666 << 16})), "zip-attributes")
    yield refused("a secret", of(MODEL, Entry(b"x", b"x", flags=0x0809)), "zip-encrypted")
    yield refused(
        "a bomb",
        of(MODEL, Entry(b"x", b"\3\0", flags=0x0800, method=8, central={"size": 10**9})),
        "zip-deflated",
        "zip-local",
    )
    yield refused("a small file with another CRC32", of(MODEL, Entry(b"config.json", b"{}", crc32=5)), "crc")
    yield refused("a checkpoint with another CRC32", of(Entry(b"model.pt", HONEST["zip"], crc32=5)), "crc")
    yield inert("a checkpoint without a CRC32", of(Entry(b"model.pt", HONEST["zip"], crc32=0)))
    yield inert("a small file without a CRC32", of(MODEL, Entry(b"config.json", b"{}", crc32=0)))
    yield refused("bytes behind the end", Zip([MODEL, two], after=b"x").build(), "zip-end")
    yield refused("one entry twice", of(MODEL, two, two), "path-clash")


def shards() -> Files:
    first, second = Entry(b"m-00001-of-00002.safetensors", ONE), Entry(b"m-00002-of-00002.safetensors", OTHER)
    yield inert("two shards", of(first, second))
    yield refused("one of two shards", of(first), "shard-missing")
    yield refused("the last of two shards", of(second), "shard-missing")
    yield refused("a shard of none", of(Entry(b"m-00001-of-00000.safetensors", ONE)), "shard-missing")
    yield refused("the shard number 0", of(Entry(b"m-00000-of-00001.safetensors", ONE)), "shard-missing")
    yield refused("one of very many", of(Entry(b"m-00001-of-99999999.safetensors", ONE)), "shard-missing")
    yield refused("a key in two shards", of(first, Entry(second.name, ONE)), "shard-overlap")
    yield refused("shards beside the whole", of(first, second, Entry(b"m.safetensors", ONE)), "shard-overlap")
    yield refused("a shard of text", of(Entry(b"m-00001-of-00001.bin", b"text"), MODEL), "shard-kind")
    for what, weight_map in {
        "of no file": {"a": "x.safetensors"},
        "that leads out": {"a": "../x"},
        "of another key": {"c": "m-00001-of-00002.safetensors"},
        "of a key in the other shard": {"b": "m-00001-of-00002.safetensors"},
        "of numbers": {"a": 1},
        "of nothing": {},
        "of itself": {"a": "m.safetensors.index.json"},
        "of a long name": {"a": "x" * 10**6},
        "of a long key": {"a" * 10**6: "m-00001-of-00002.safetensors"},
    }.items():
        index = Entry(b"m.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode())
        yield refused(f"an index {what}", of(first, second, index), "shard-index", "shard-kind")
    for what, text in {
        "empty": b"", "cut": b'{"weight_map": {"a"', "a list": b"[]", "deep": b"[" * 10**6,
        "deep objects": b'{"a":' * 10**5,
        "a long number": b'{"weight_map": ' + b"9" * 10**6 + b"}", "not UTF-8": b'{"weight_map": {"\xff": "m"}}',
        "NaN": b'{"weight_map": NaN}', "a surrogate": b'{"weight_map": {"a": "\\ud800"}}',
    }.items():  # fmt: skip
        yield refused(
            f"an index that is {what}", of(first, second, Entry(b"m.safetensors.index.json", text)), "shard-index"
        )
    index = json.dumps({"weight_map": {"a": "m-00001-of-00002.safetensors"}}).encode()
    yield refused(
        "a shard of two indexes",
        of(first, second, Entry(b"m.safetensors.index.json", index), Entry(b"n.safetensors.index.json", index)),
        "shard-index",
    )


def inside() -> Files:
    yield refused("a cut checkpoint", of(Entry(b"model.pt", HONEST["zip"][:-1])), "zip-end")
    yield refused("a cut shard", of(Entry(b"model.safetensors", ONE[:-1])), "truncated")
    yield refused("safetensors in name only", of(Entry(b"model.safetensors", b"text"), MODEL), "magic")
    yield refused(
        "a pointer of git-lfs", of(Entry(b"model.bin", b"version https://git-lfs.github.com/spec/v1\n"), MODEL), "magic"
    )
    yield refused("a folder in a folder's checkpoint", of(Entry(b"model.safetensors", of(MODEL))), "no-pickle")
    yield inert("a folder as a file", of(Entry(b"model.bin", of(MODEL)), Entry(b"a.pt", HONEST["zip"])))
    evil = pickle(tensor(storage()), b"cos\nsystem\n(" + b"X\1\0\0\0xtR")
    yield inert("a gadget beside tensors", of(Entry(b"model.pt", zip_of(evil))), "os.system")
    yield inert(
        "a gadget without tensors is kept unread",
        of(MODEL, Entry(b"args.bin", zip_of(b"cos\nsystem\n(X\1\0\0\0xtR.", {"version": b"3"}))),
    )
    lying = struct.pack("<Q", 2**63) + b"{"
    yield survived("a header of half the address space", of(Entry(b"a.bin", lying), MODEL))
    for text in (
        b"[" * 10**6,
        b"9" * 10**6,
        b'{"log_history": [' + b'{"loss": 1},' * 10**5,
        b"\xff",
        b'{"epoch": 1e400, "global_step": -1}',
    ):
        yield inert(f"a trainer's state {text[:12]!r} ({len(text)})", of(MODEL, Entry(b"trainer_state.json", text)))
    tied = b'{"log_history": [' + b",".join(b'{"m%d": %d}' % (n, n) for n in range(20_000)) + b"]}"
    yield inert("a trainer's state with many metrics", of(MODEL, Entry(b"trainer_state.json", tied)))


def amounts() -> Files:
    yield inert("as many files as there may be", of(MODEL, *[Entry(b"%d" % n, flags=0x0800) for n in range(9_999)]))
    yield refused("one more", of(MODEL, *[Entry(b"%d" % n, flags=0x0800) for n in range(10_000)]), "too-many-files")
    yield refused("very many", of(MODEL, *[Entry(b"%d" % n, flags=0x0800) for n in range(60_000)]), "too-many-files")
    yield refused("very many of one name", of(MODEL, *[Entry(b"a", flags=0x0800)] * 60_000), "path-clash")
    yield inert("many checkpoints", of(*[Entry(b"%d.safetensors" % n, ONE) for n in range(5_000)]))
    yield refused(
        "many shards with one key",
        of(*[Entry(b"m-%05d-of-02000.safetensors" % n, ONE) for n in range(1, 2_001)]),
        "shard-overlap",
    )
    deep = "/".join("d" * 48).encode()
    paths = [b"%d/%s/%s" % (n, deep, b"x" * 200) for n in range(9_999)]
    yield inert("deep paths, each of its own", of(MODEL, *[Entry(path, flags=0x0800) for path in paths]))
    yield refused("a path that is too deep", of(MODEL, Entry(b"d/" * 50 + b"x")), "path")
