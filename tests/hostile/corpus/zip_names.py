"""Names of records that lead elsewhere, that readers understand differently, or that occur twice."""

from dataclasses import replace

from tests.formats.zips import Entry, Zip
from tests.hostile.corpus.base import FLOATS, HONEST, NOTHING, Files, entries, inert, pickle, refused, storage, tensor

PICKLE = pickle(tensor(storage()), NOTHING)

LEADING_ELSEWHERE = [
    b"r/../../etc/passwd",
    b"../r/data/9",
    b"/etc/passwd",
    b"r//data/9",
    b"r/./data/9",
    b"r/data/..",
    b"r/data/.",
    b"r/data/9/",
    b"r\\data\\9",
    b"..\\r\\data",
    b"r/data/9\0",
    b"r/\0",
    b"\0",
    b"r",
    b"",
    b"/",
    b"r/",
    b"./r/data/9",
    b"r/..\\..\\x",
    b"r/data/\xff\xfe",
    b"r/\xc0\xaf/x",
    b"r/\xed\xa0\x80",
    b"r/" + b"n" * 4096,
    b"r/" + b"n" * 65_000,
]
ELSEWHERE = [b"q/data/9", b"R/data/9", b"rr/data/9", b"r /data/9", "\u0433/data/9".encode(), b"C:/data/9", b"~/.bashrc"]
TWICE = [
    b"r/data/0",
    b"r/data.pkl",
    b"r/version",
    b"r/byteorder",
    b"r/DATA/0",
    b"r/Data.pkl",
    b"r/VERSION",
    b"r/Byteorder",
    "r/ver\u017fion".encode(),
    "r/byteorder".replace("o", "O").encode(),
]
STRANGE_BUT_CLEAR = [
    b"r/data/9\n",
    b"r/data/\x1b[2J",
    b"r/CON",
    b"r/a:b",
    b"r/...",
    b"r/.data/x",
    "r/data/\u202egnp".encode(),
    "r/\U0001f600".encode(),
    b"r/data/9 ",
    b"r/-rf",
    b"r/$(id)",
    b"r/other.pkl",
    b"r/" + b"d/" * 1000 + b"x",
]


def files() -> Files:
    for name in LEADING_ELSEWHERE:
        yield refused(f"a record {name[:40]!r} ({len(name)})", with_record(name), "zip-name", "zip-directory")
    for name in ELSEWHERE:
        yield refused(f"a record {name!r}", with_record(name), "zip-root")
    for name in TWICE:
        yield refused(f"a second {name!r}", with_record(name), "zip-duplicate")
        first = Zip([*entries(PICKLE), Entry(name, b"x")]).build()
        yield refused(f"a last {name!r}", first, "zip-duplicate")
    for name in STRANGE_BUT_CLEAR:
        yield inert(f"a record {name[:40]!r} ({len(name)})", with_record(name))
    for root in (b"\xc3\xa9t\xc3\xa9", b"a b", b"x" * 255, b"archive", b"data", b"CON", b"'; DROP TABLE models; --"):
        yield inert(f"root folder {root[:40]!r}", rooted(root))
    for root in (b"..", b".", b"", b"\0", b"\xff", b"r\\x"):
        yield refused(f"root folder {root!r}", rooted(root), "zip-name", "no-pickle")
    spoken = with_record("r/\u00e9".encode(), flags=0x0008)
    yield refused("a name that some read as cp437, some as utf-8", spoken, "zip-name")
    yield refused(
        "a pickle only below another folder", HONEST["zip"].replace(b"r/data.pkl", b"r/Data.pkl"), "no-pickle"
    )
    nested = Zip([replace(entry, name=b"r/" + entry.name) for entry in entries(PICKLE)]).build()
    yield refused("all records a folder lower", nested, "no-pickle")


def with_record(name: bytes, flags: int = 0x0808) -> bytes:
    """The honest file with one more record, before those that matter."""
    first, *rest = entries(PICKLE)
    return Zip([first, Entry(name, FLOATS, flags=flags), *rest]).build()


def rooted(root: bytes) -> bytes:
    return Zip([replace(entry, name=root + entry.name[1:]) for entry in entries(PICKLE)]).build()
