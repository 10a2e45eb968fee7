"""Records whose directory entry and local header differ."""

import struct
import zlib
from dataclasses import replace

from tests.formats.zips import Entry, Zip, zip64_extra
from tests.hostile.corpus.base import NOTHING, Files, entries, inert, pickle, refused, storage, tensor

PICKLE = pickle(tensor(storage()), NOTHING)
PLACES = {"data.pkl": 0, "data/0": 2, "version": 3}


def with_entry(place: int, change: Entry) -> bytes:
    made = entries(PICKLE)
    return Zip([*made[:place], change, *made[place + 1 :]]).build()


def files() -> Files:
    yield from central_fields()
    yield from local_fields()
    yield from descriptors()
    yield from extras()


def central_fields() -> Files:
    for name, place in PLACES.items():
        entry = entries(PICKLE)[place]
        size = len(entry.data)
        for field, value, *rules in [
            ("packed", size - 1, "zip-method"),
            ("packed", size + 1, "zip-method"),
            ("packed", 0xFFFFFFFF, "zip-method"),
            ("size", size - 1, "zip-method"),
            ("size", size + 1, "zip-method"),
            ("size", 0, "zip-method"),
            ("header", 1, "zip-gap", "zip-overlap"),
            ("header", 0xFFFFFFFF, "zip-gap"),
            ("header", 2**31, "zip-gap"),
            ("comment", 1, "zip-directory"),
            ("disk", 1, "zip-directory"),
            ("signature", b"PK\1\3", "zip-directory"),
            ("crc32", 1, "zip-crc", "crc", "zip-descriptor"),
            ("flags", 0x0809, "zip-encrypted"),
            ("flags", 0x0848, "zip-encrypted"),
            ("flags", 0x2808, "zip-encrypted"),
            ("flags", 0x0828, "zip-flags"),
            ("flags", 0x0818, "zip-flags"),
            ("flags", 0x0800, "zip-local"),
            ("flags", 0x0008, "zip-local"),
            ("flags", 0x080A, "zip-local"),
            *[("method", method, "zip-method", "zip-local") for method in (1, 6, 8, 9, 12, 14, 93, 95, 98, 99)],
        ]:
            yield refused(
                f"{name}: central {field}={value}", with_entry(place, replace(entry, central={field: value})), *rules
            )
        both = replace(entry, central={"size": size + 1, "packed": size + 1})
        yield refused(f"{name}: a byte more", with_entry(place, both), "zip-overlap", "zip-descriptor", "zip-local")
        for kind, attributes in {
            "a folder": 0x10,
            "a volume": 0x08,
            "a link": 0o120777 << 16,
            "a device": 0o60600 << 16,
            "a unix folder": 0o40755 << 16,
        }.items():
            marked = replace(entry, central={"attributes": attributes})
            yield refused(f"{name}: marked as {kind}", with_entry(place, marked), "zip-attributes")
        plain = replace(entry, central={"attributes": 0o100644 << 16 | 0x20})
        yield inert(f"{name}: marked as a plain file", with_entry(place, plain))


def local_fields() -> Files:
    for name, place in PLACES.items():
        entry = entries(PICKLE)[place]
        for other in (b"r/DATA.PKL", b"r/data/1", b"q/" + entry.name[2:], entry.name + b"\0", b"", entry.name[:-1]):
            yield refused(
                f"{name}: local name {other!r}",
                with_entry(place, replace(entry, local={"name": other})),
                "zip-local",
                "zip-overlap",
            )
        for field, value in [
            ("flags", 0x0800),
            ("flags", 0x0008),
            ("flags", 0x0809),
            ("method", 8),
            ("method", 99),
            ("signature", b"PK\3\5"),
            ("signature", b"PK\1\2"),
        ]:
            first = ("magic",) if place == 0 and field == "signature" else ()
            data = with_entry(place, replace(entry, local={field: value}))
            yield refused(f"{name}: local {field}={value}", data, "zip-local", *first)
        for field in ("packed", "size", "crc32"):
            for value in sorted({1, len(entry.data) - 1, len(entry.data) + 1, 2**31}):
                data = with_entry(place, replace(entry, local={field: value}))
                yield refused(f"{name}: local {field}={value}", data, "zip-local")
        told = {"packed": len(entry.data), "size": len(entry.data), "crc32": zlib.crc32(entry.data)}
        yield inert(f"{name}: local sizes as central ones", with_entry(place, replace(entry, local=told)))
        untold = replace(entry, flags=0x0800, local={"packed": 0, "size": 0, "crc32": 0})
        yield refused(f"{name}: no sizes and no descriptor", with_entry(place, untold), "zip-local")


def descriptors() -> Files:
    for name, place in PLACES.items():
        entry = entries(PICKLE)[place]
        size, crc32 = len(entry.data), zlib.crc32(entry.data)
        for what, made in {
            "signature": (b"PK\7\7", crc32, size, size),
            "crc32": (b"PK\7\10", crc32 ^ 1, size, size),
            "packed": (b"PK\7\10", crc32, size + 1, size),
            "size": (b"PK\7\10", crc32, size, size - 1),
        }.items():
            changed = replace(entry, descriptor=struct.pack("<4sIII", *made))
            yield refused(f"{name}: descriptor with another {what}", with_entry(place, changed), "zip-descriptor")
        for what, descriptor in {
            "none": b"",
            "a wide one": struct.pack("<4sIQQ", b"PK\7\10", crc32, size, size),
            "no signature": struct.pack("<III", crc32, size, size),
        }.items():
            changed = replace(entry, descriptor=descriptor)
            yield refused(
                f"{name}: descriptor, {what}", with_entry(place, changed), "zip-descriptor", "zip-gap", "zip-overlap"
            )


def extras() -> Files:
    """Fields that rename a record, encrypt it, or tell its sizes once more."""
    for name, place in PLACES.items():
        entry = entries(PICKLE)[place]
        renamed = b"\1" + struct.pack("<I", zlib.crc32(entry.name)) + b"r/data/9"
        for what, extra in {
            "a unicode name": tagged(0x7075, renamed),
            "a unicode comment": tagged(0x6375, b"\1\0\0\0\0c"),
            "AES": tagged(0x9901, b"\2\0AE\3\0\0"),
            "strong encryption": tagged(0x0017, bytes(8)),
            "zip64 sizes that are not asked for": zip64_extra(1, 1),
            "two zip64 fields": zip64_extra() * 2,
            "half a field": b"FB\xff\xff",
            "half a head": b"FB\0",
        }.items():
            central = with_entry(place, replace(entry, central_extra=extra))
            yield refused(f"{name}: central extra, {what}", central, "zip-extra")
            if what != "zip64 sizes that are not asked for":
                yield refused(
                    f"{name}: local extra, {what}", with_entry(place, replace(entry, extra=extra)), "zip-extra"
                )
        for what, wide in {
            "no sizes": (),
            "one size": (len(entry.data),),
            "other sizes": (1, 1),
            "huge sizes": (2**63, 2**63),
        }.items():
            fields = {"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF}
            changed = replace(entry, central=fields, central_extra=zip64_extra(*wide))
            yield refused(
                f"{name}: zip64, {what}",
                with_entry(place, changed),
                "zip-extra",
                "zip-overlap",
                "zip-method",
                "zip-descriptor",
                "zip-local",
            )
        told = replace(
            entry,
            central={"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF},
            central_extra=zip64_extra(len(entry.data), len(entry.data)),
        )
        yield inert(f"{name}: zip64 sizes of a small record", with_entry(place, told))
        times = tagged(0x5455, b"\1\0\0\0\0") + tagged(0x7875, bytes(11))
        yield inert(f"{name}: times and owners", with_entry(place, replace(entry, extra=times, central_extra=times)))


def tagged(tag: int, body: bytes) -> bytes:
    return struct.pack("<HH", tag, len(body)) + body
