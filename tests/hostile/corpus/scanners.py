"""Evasions of scanners for code in checkpoints: files that break off, hide, nest or disguise the code.

After CVE-2025-1889 (extensions), CVE-2025-1944 and -1945 (zip headers), CVE-2025-10155 (extensions), -10156 (CRC32),
-10157 (subclasses), 7z containers and "broken" pickles as found on model hubs.
"""

import gzip
import lzma
import pickle as stock

from tests.formats.zips import Entry, Zip, zip64_extra
from tests.hostile.corpus.base import (
    CONTAINERS,
    FLOATS,
    HONEST,
    NOTHING,
    Files,
    entries,
    inert,
    pickle,
    refused,
    storage,
    tensor,
    zip_of,
)
from tests.hostile.corpus.polyglots import tar_head
from tests.hostile.make import text

EVIL = b"cos\nsystem\n" + text("touch owned") + b"\x85R"
WHOLE = pickle(tensor(storage()), EVIL)


def files() -> Files:
    for end in (b"", b"\xff", b"0", b"00000", b"c", b"R", b"(", b"\x95\xff", b"X\xff\xff\xff\x7f", b"."):
        broken = b"\x80\x02" + EVIL + end
        yield refused(f"zip: runs, then breaks with {end!r}", zip_of(broken), *BREAKS)
        yield refused(f"bare: runs, then breaks with {end!r}", broken, "magic")
    for container, wrapped in CONTAINERS.items():
        nested = stock.dumps(WHOLE, 2)[2:-1]
        for what, payload in {
            "as bytes": nested,
            "as text": text(EVIL.decode("latin-1")),
            "in a tuple": EVIL + b"\x85",
            "as a key": b"}" + EVIL + b"Ns",
            "twice": EVIL + b"0" + EVIL,
        }.items():
            names = () if what in {"as bytes", "as text"} else ("os.system",)
            yield inert(f"{container}: code {what}", wrapped(payload), *names)
        loads = b"cpickle\nloads\n" + nested + b"\x85R"
        yield inert(f"{container}: a pickle in a pickle", wrapped(loads), "pickle.loads")
        tarred = b"ctorch.storage\n_load_from_bytes\n" + stock.dumps(HONEST["legacy"], 2)[2:-1] + b"\x85R"
        yield inert(f"{container}: a checkpoint in a pickle", wrapped(tarred), "torch.storage._load_from_bytes")
    yield from disguised()
    yield from zips()
    yield from legacy_heads()


BREAKS = ("truncated", "opcode", "stack-underflow", "stack-left", "length", "no-tensors", "arguments", "not-callable")


def disguised() -> Files:
    for what, data in {
        "gzip": gzip.compress(HONEST["zip"]),
        "xz": lzma.compress(HONEST["zip"]),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(60),
        "rar": b"Rar!\x1a\x07\x01\0" + bytes(60),
        "numpy": b"\x93NUMPY\x01\0" + bytes(60),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(60),
        "gguf": b"GGUF\3\0\0\0" + bytes(60),
        "onnx": b"\x08\x07\x12\x07pytorch" + bytes(60),
        "elf": b"\x7fELF" + bytes(60),
        "a pickle": WHOLE,
        "a pickle of protocol 0": pickle(tensor(storage()), EVIL, 0),
        "joblib": b"\x80\x04\x95" + bytes(60),
        "a zip spanned": b"PK\7\10" + HONEST["zip"],
        "an empty zip": b"PK\5\6" + bytes(18),
        "html": b"<html>" + HONEST["zip"],
        "a script": b"#!/bin/sh\nexit\n" + HONEST["zip"],
        "utf-16": "PK".encode("utf-16") + bytes(60),
        "json": b"{}" + bytes(60),
        "a short safetensors": b"\2\0\0\0\0\0\0\0{",
        "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\n",
    }.items():
        yield refused(f"disguised: {what}", data, "magic", "truncated", "zip-end")
    for magic in (b"ustar\x0000", b"ustar  \0", bytes(8)):
        yield refused(f"disguised: a tar, {magic!r}", tar_head(b"sys_info", magic) + bytes(1024), "tar")


def zips() -> Files:
    """The archive is what is off, the pickle in it is plain to see."""
    made = entries(WHOLE)
    evil = entries(WHOLE)[0]
    for what, changed, rule in [
        ("a flag of encryption", Entry(evil.name, evil.data, flags=0x0809), "zip-encrypted"),
        ("a local name of another record", Entry(evil.name, evil.data, local={"name": b"r/config"}), "zip-local"),
        ("a central name of another record", Entry(b"r/config", evil.data, local={"name": evil.name}), "no-pickle"),
        ("a wrong CRC32", Entry(evil.name, evil.data, crc32=1), "zip-crc"),
        ("a wrong method", Entry(evil.name, evil.data, method=12), "zip-method"),
        ("a size of none", Entry(evil.name, evil.data, central={"size": 0, "packed": 0}), "zip-descriptor"),
        ("another name in unicode", Entry(evil.name, evil.data, central_extra=b"up\5\0\1\0\0\0\0"), "zip-extra"),
        ("a folder's mark", Entry(evil.name, evil.data, central={"attributes": 0x10}), "zip-attributes"),
        ("zip64 sizes", Entry(evil.name, evil.data, central_extra=zip64_extra(1)), "zip-extra"),
        ("a name with a NUL", Entry(evil.name + b"\0.txt", evil.data), "no-pickle"),
    ]:
        rules = (rule, "zip-name")
        yield refused(f"zip: {what}", Zip([changed, *made[1:]]).build(), *rules)
    for extension in ("pt", "bin", "ckpt", "txt", "config", "p", "joblib", "npy"):
        beside = Entry(f"r/extra.{extension}".encode(), WHOLE)
        yield inert(
            f"zip: a pickle beside, named .{extension}",
            Zip([*entries(pickle(tensor(storage()), NOTHING)), beside]).build(),
        )
    yield inert(
        "zip: a checkpoint as a storage that nothing names",
        zip_of(pickle(tensor(storage()), NOTHING), {"data/0": FLOATS, "data/1": HONEST["zip"], "version": b"3"}),
    )


def legacy_heads() -> Files:
    """Code in the pickles around the object, which torch.load without weights_only runs as well."""
    honest = HONEST["legacy"]
    magic_end = honest.index(b".") + 1
    version_end = honest.index(b".", magic_end) + 1
    for what, at in {
        "the magic number": 2,
        "the version": magic_end + 2,
        "the machine": version_end + 2,
        "the keys": honest.rindex(b"\x80\x02") + 2,
    }.items():
        yield refused(f"legacy: code before {what}", honest[:at] + EVIL + b"0" + honest[at:], "plain-values", "magic")
        yield refused(f"legacy: a name before {what}", honest[:at] + b"cm\nf\n0" + honest[at:], "plain-values", "magic")
    yield refused(
        "legacy: the facts are code",
        honest.replace(honest[version_end : honest.index(b".", version_end) + 1], b"\x80\x02" + EVIL + b"."),
        "plain-values",
    )
    hidden = b"\x80\x02}" + text("x") + EVIL + b"s."
    yield refused(
        "legacy: code among the facts",
        honest[:version_end] + hidden + honest[honest.index(b".", version_end) + 1 :],
        "plain-values",
    )
    for pid in (b"NQ", text("storage") + b"Q"):
        yield refused(
            f"legacy: a storage {pid!r} before the version",
            honest[: magic_end + 2] + pid + b"0" + honest[magic_end + 2 :],
            "plain-values",
        )
