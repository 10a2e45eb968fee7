"""Contents of the small records of a torch zip, and ambiguous records."""

from tests.formats.zips import Entry, Zip
from tests.hostile.corpus.base import FLOATS, NOTHING, Files, entries, inert, pickle, refused, storage, tensor, zip_of

PICKLE = pickle(tensor(storage()), NOTHING)
OTHERS = bytes(32)


def files() -> Files:
    for text in (
        b"",
        b"0",
        b"11",
        b"99",
        b"-1",
        b"3.0",
        b"3\n3",
        b"three",
        b"\xc2\xb3",
        b"\xd9\xa3",
        b"0x3",
        b"+3",
        b"3" * 20,
        b"3" + bytes(9),
        b"3\n" + b"\n" * 30,
        b" " * 10**6,
    ):
        yield refused(
            f"version {text[:20]!r} ({len(text)})", zip_of(PICKLE, {"data/0": FLOATS, "version": text}), "version"
        )
    for number in range(1, 11):
        yield inert(f"version {number}", zip_of(PICKLE, {"data/0": FLOATS, "version": b"%d\n" % number}))
    yield refused("no version", zip_of(PICKLE, {"data/0": FLOATS}), "no-version")
    for text in (b"", b"Little", b"middle", b"little\n", b"little\0", b"bigger", b"native", b"<", b"big" * 10**6):
        records = {"byteorder": text, "data/0": FLOATS, "version": b"3"}
        yield refused(f"byteorder {text[:20]!r} ({len(text)})", zip_of(PICKLE, records), "byteorder")
    yield inert("byteorder big", zip_of(PICKLE, {"byteorder": b"big", "data/0": FLOATS, "version": b"3"}))
    yield from two_of_one()
    yield from checksums()
    yield refused("no storage", zip_of(PICKLE, {"version": b"3"}), "storage-missing")
    yield refused("its storage in another case", zip_of(PICKLE, {"DATA/0": FLOATS, "version": b"3"}), "storage-missing")
    for size in (0, 31, 33, 64):
        yield refused(
            f"a storage of {size} bytes", zip_of(PICKLE, {"data/0": bytes(size), "version": b"3"}), "storage-size"
        )
    yield inert("a storage that nothing names", zip_of(PICKLE, {"data/0": FLOATS, "data/1": FLOATS, "version": b"3"}))
    yield refused(
        "a record named like the pickle, and no pickle", zip_of(PICKLE).replace(b"data.pkl", b"daTa.pkl"), "no-pickle"
    )
    for name in ("__main__.py", "evil.pkl", "data.pkl/x", ".data/extern_modules", "code.pkl", "attributes.pkl"):
        yield inert(
            f"a record {name} beside it", zip_of(PICKLE, {name: b"cos\nsystem\n.", "data/0": FLOATS, "version": b"3"})
        )


def two_of_one() -> Files:
    """Two records that different versions of torch take for the same thing."""
    for one, other in ((FLOATS, OTHERS), (OTHERS, FLOATS), (FLOATS, FLOATS)):
        both = {"data/0": one, "tensors/0": other, "version": b"3"}
        yield refused(f"data/0 and tensors/0, {one == other} {one == OTHERS}", zip_of(PICKLE, both), "zip-duplicate")
        turned = dict(reversed(both.items()))
        yield refused(f"tensors/0 and data/0, {one == other} {one == OTHERS}", zip_of(PICKLE, turned), "zip-duplicate")
    for one, other in ((b"3", b"4"), (b"3", b"99"), (b"99", b"3"), (b"3", b"3")):
        both = {"data/0": FLOATS, ".data/version": one, "version": other}
        yield refused(f"versions {one!r} and {other!r}", zip_of(PICKLE, both), "zip-duplicate")


def checksums() -> Files:
    """CRC32s that are wrong: torch does not look at them, others refuse the file."""
    made = entries(PICKLE)
    for place, rule in {0: "zip-crc", 1: "zip-crc", 2: "crc", 3: "zip-crc"}.items():
        for crc32 in (1, 0xFFFFFFFF):
            wrong = Entry(made[place].name, made[place].data, crc32=crc32)
            yield refused(
                f"record {place} with the CRC32 {crc32}", Zip([*made[:place], wrong, *made[place + 1 :]]).build(), rule
            )
        none = Entry(made[place].name, made[place].data, crc32=0)
        yield inert(f"record {place} without a CRC32", Zip([*made[:place], none, *made[place + 1 :]]).build())
    beside = Entry(b"r/notes.pkl", b"N.", crc32=1)
    yield inert("a record that nobody reads with another CRC32", Zip([*made, beside]).build())
