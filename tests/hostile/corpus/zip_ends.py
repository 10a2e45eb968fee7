"""The records at the end of a zip, which each reader looks for in its own way."""

from dataclasses import replace

from tests.formats.zips import Zip
from tests.hostile.corpus.base import HONEST, NOTHING, Files, entries, pickle, refused, storage, tensor

HONEST_ZIP = Zip(entries(pickle(tensor(storage()), NOTHING)))


def files() -> Files:
    for field in ("disk", "here", "count", "length", "start"):
        for value in (0, 1, 3, 5, 0xFFFE, 0xFFFF):
            if value != {"here": 4, "count": 4}.get(field) and not (field == "disk" and value == 0):
                zip_file = replace(HONEST_ZIP, end={field: value})
                yield refused(f"end record, {field}={value}", zip_file.build(), "zip-end")
                bare = replace(zip_file, zip64=False)
                yield refused(f"end record alone, {field}={value}", bare.build(), "zip-end", "zip-directory")
    for field in ("size", "disk", "here", "count", "length", "start"):
        for value in (1, 5, 0xFFFF, 0xFFFFFFFF, 2**63, 2**64 - 1) if field != "disk" else (1, 0xFFFFFFFF):
            yield refused(
                f"zip64 end record, {field}={value}",
                replace(HONEST_ZIP, end64={field: value}).build(),
                "zip-end",
                "zip-records",
                "zip-directory",
            )
    for field, values in {"disk": (1, 2**32 - 1), "at": (0, 1, 2**63, 2**64 - 1), "disks": (2, 2**32 - 1)}.items():
        for value in values:
            yield refused(
                f"zip64 locator, {field}={value}", replace(HONEST_ZIP, locator={field: value}).build(), "zip-end"
            )
    for size in (1, 22, 1000, 65_535):
        yield refused(f"comment of {size} bytes", replace(HONEST_ZIP, comment=b"c" * size).build(), "zip-end")
    for name, after in {
        "a byte": b"\0",
        "a newline": b"\n",
        "an end record": HONEST["zip"][-22:],
        "itself": HONEST["zip"],
        "its first half": HONEST["zip"][:300],
    }.items():
        yield refused(f"{name} behind the end", HONEST["zip"] + after, "zip-end", "zip-directory", "zip-overlap")
        inside = replace(HONEST_ZIP, after_directory=after).build()
        yield refused(f"{name} behind the directory", inside, "zip-directory", "zip-end")
    for before in (b"\0", b"MZ", b"#!/bin/sh\n", b"\x80\x02N.", b"%PDF-1.7\n"):
        yield refused(f"{before!r} before the first record", before + HONEST["zip"], "magic")
    count = {"count": 10**6, "here": 10**6}
    yield refused(
        "a million records",
        replace(HONEST_ZIP, end={"count": 65535, "here": 65535}, end64=count).build(),
        "zip-records",
    )
