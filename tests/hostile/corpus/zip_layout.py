"""Positions of records in a zip: gaps, overlaps, orders, and compressed records that are larger than they look."""

import zlib
from dataclasses import replace

from tests.formats.zips import Entry, Zip
from tests.hostile.corpus.base import FLOATS, HONEST, NOTHING, Files, entries, inert, pickle, refused, storage, tensor

PICKLE = pickle(tensor(storage()), NOTHING)
JUNK = {
    "a zero": b"\0",
    "zeros": bytes(64),
    "a local header": b"PK\3\4" + bytes(26),
    "an end record": b"PK\5\6" + bytes(18),
    "a directory entry": b"PK\1\2" + bytes(42),
    "a descriptor": b"PK\7\10" + bytes(12),
    "a pickle": b"\x80\x02N.",
    "a zip": HONEST["zip"],
    "a signature": b"PK\6\10" + bytes(4),
}


def files() -> Files:
    made = entries(PICKLE)
    for what, junk in JUNK.items():
        for place in range(1, len(made)):
            changed = [*made[:place], replace(made[place], before=junk), *made[place + 1 :]]
            yield refused(f"{what} before record {place}", Zip(changed).build(), "zip-gap")
        yield refused(f"{what} before the directory", Zip(made, before_directory=junk).build(), "zip-gap")
    yield from overlaps()
    yield from packed()
    for count in range(4):
        turned = made[count:] + made[:count]
        yield inert(f"records turned by {count}", Zip(turned).build())
    for count in (1, 2, 3):
        yield refused(f"the directory in another order, {count}", reordered(count), "zip-overlap", "zip-gap")
    for padding in (0, 1, 63, 4095, 65_531):
        padded = [replace(entry, extra=b"FB" + padding.to_bytes(2, "little") + b"Z" * padding) for entry in made]
        yield inert(f"{padding} bytes of padding", Zip(padded).build())


def overlaps() -> Files:
    """Records over each other, as in zip bombs that need no compression of their own."""
    made = entries(PICKLE)
    first = len(Zip(made[:1]).build()) - 98 - 46 - len(made[0].name)  # its directory entry and the three end records
    for name, place in {"data/0 over data.pkl": 2, "version over data.pkl": 3}.items():
        changed = [*made[:place], replace(made[place], central={"header": 0}), *made[place + 1 :]]
        yield refused(name, Zip(changed).build(), "zip-overlap")
    for back in (1, 16, 30, 60):
        changed = [made[0], replace(made[1], central={"header": first - back}), *made[2:]]
        yield refused(f"a record that starts {back} bytes early", Zip(changed).build(), "zip-overlap")
    quoted = Zip([Entry(b"r/data/9", FLOATS)]).build()[:-98]
    for count in (2, 10, 100):
        over = [
            Entry(b"r/data/9", FLOATS),
            *[Entry(b"r/data/x%d" % n, FLOATS, central={"header": 0}) for n in range(count)],
        ]
        yield refused(f"{count} records over one", Zip([*made, *over]).build(), "zip-overlap")
    yield refused(
        "a record in a record", Zip([*made, Entry(b"r/q", quoted, central={"header": 5})]).build(), "zip-overlap"
    )
    for size in (10**6, 2**31, 2**32 - 2):
        large = replace(made[2], central={"size": size, "packed": size})
        yield refused(f"a record of {size} bytes", Zip([*made[:2], large, made[3]]).build(), "zip-overlap")


def packed() -> Files:
    """Deflated records, of which torch writes none but a program's text."""
    made = entries(PICKLE)
    for place in range(4):
        entry = made[place]
        small = deflate(entry.data)
        changed = replace(
            entry, data=small, method=8, crc32=zlib.crc32(entry.data), central={"size": len(entry.data)}, flags=0x0800
        )
        yield refused(
            f"record {place} deflated", Zip([*made[:place], changed, *made[place + 1 :]]).build(), "zip-deflated"
        )
    for size in (10**6, 10**8, 2**32 - 2):
        bomb = Entry(b"r/data/9", deflate(bytes(10**6)), method=8, central={"size": size}, flags=0x0800)
        yield refused(f"a deflated bomb of {size}", Zip([*made, bomb]).build(), "zip-deflated")
    twice = Entry(b"r/data/9", deflate(deflate(bytes(10**7))), method=8, central={"size": 10**7}, flags=0x0800)
    yield refused("a bomb in a bomb", Zip([*made, twice]).build(), "zip-deflated")


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def reordered(count: int) -> bytes:
    """The records as they lie, their entries turned by ``count``."""
    honest = HONEST["zip"]
    start = honest.index(b"PK\1\2")
    end = honest.index(b"PK\6\6")
    rows = [b"PK\1\2" + row for row in honest[start:end].split(b"PK\1\2")[1:]]
    return honest[:start] + b"".join(rows[count:] + rows[:count]) + honest[end:]
