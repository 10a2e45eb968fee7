"""Small pickles that take much memory, long time or deep recursion in any reader.

The caps on opcodes and memo slots take files of 20 MB: tests/hostile/test_bombs.py has them.
"""

import struct

from tests.hostile.corpus.base import CONTAINERS, Files, inert, refused, survived
from tests.hostile.make import text

MILLION = 1_000_000
THOUSAND = 1_000


def many(count: int, make: bytes) -> bytes:
    """``make`` with its number in the place of ####, so often."""
    return b"".join(make.replace(b"####", struct.pack("<I", n)) for n in range(count))


def files() -> Files:
    for container, wrapped in CONTAINERS.items():
        for depth in (200, 900):
            yield inert(f"{container}: {depth} lists", wrapped(b"]" * depth + b"a" * (depth - 1)))
        for depth in (1_100, 10_000, MILLION):
            for what, payload in {
                "lists": b"]" * depth + b"a" * (depth - 1),
                "tuples": b")" + b"\x85" * depth,
                "marks": b"(" * depth + b"t" * depth,
                "calls": b"cf\ng\n" + b")R" * depth,
            }.items():
                yield refused(f"{container}: {depth} {what} in each other", wrapped(payload), "nesting", "stack-size")
        dicts = (b"}" + text("k")) * 5_000 + b"N" + b"s" * 5_000
        yield refused(f"{container}: 5,000 dicts in each other", wrapped(dicts), "nesting")
        yield from slots(container)
        yield from sharing(container)
        for what, payload in {"lists": b"]" * 3 * MILLION, "DUPs": b"N" + b"2" * 3 * MILLION}.items():
            yield refused(f"{container}: 3 million {what} on the stack", wrapped(payload), "stack-size")
        primes = b"".join(b"\x8a\x10" + (n * (2**61 - 1)).to_bytes(16, "little") + b"N" for n in range(50 * THOUSAND))
        yield inert(f"{container}: 50,000 integers with one hash", wrapped(b"}(" + primes + b"u"))
        yield inert(f"{container}: one key 100,000 times", wrapped(b"}(" + (b"K\x01N" * 100_000) + b"u"))
        yield inert(f"{container}: a set of 20,000 tuples", wrapped(b"\x8f(" + b"N\x85" * 20_000 + b"\x90", 4))
        yield refused(
            f"{container}: a set of 20,000 lists", wrapped(b"\x8f(" + b"]" * 20_000 + b"\x90", 4), "unhashable"
        )
        long = b"(" + b"N" * 10_000 + b"tq\0" + b"0}" + b"h\0Ns" * 10_000
        yield refused(f"{container}: one long tuple a key again and again", wrapped(long), "too-much-work")
        laughs = b")" + b"".join(b"q%bh%b\x86" % (bytes([n]), bytes([n])) for n in range(200))
        shared = wrapped(b"}" + laughs + b"Ns")
        yield refused(f"{container}: a key of tuples that share each other", shared, "too-much-work")


def slots(container: str) -> Files:
    wrapped = CONTAINERS[container]
    for slot in (256, 2**31 - 1, 2**31, 2**32 - 1):
        put = struct.pack("<I", slot)
        yield inert(f"{container}: memo slot {slot}", wrapped(b"Nr" + put + b"0j" + put))
    yield inert(
        f"{container}: memo slots far apart", wrapped(b"N" + many(50 * THOUSAND, b"r####")[: 5 * 50 * THOUSAND])
    )
    backwards = b"".join(b"r" + struct.pack("<I", 2**32 - 1 - n * 4096) for n in range(100 * THOUSAND))
    yield inert(f"{container}: memo slots that collide", wrapped(b"N" + backwards))
    low = b"".join(b"r" + struct.pack("<I", n << 17) for n in range(2**15))
    yield inert(f"{container}: memo slots with one end", wrapped(b"N" + low))
    for code in (b"h\x07", b"j\xff\xff\xff\xff", b"g7\n"):
        yield refused(f"{container}: {code!r}, which holds nothing", wrapped(code), "memo-unknown")


def sharing(container: str) -> Files:
    """Lists of lists of lists, each of which is one list."""
    wrapped = CONTAINERS[container]
    for kind, code in {"tuples": b"\x86", "lists": b"e"}.items():
        for levels in (20, 60, 120):
            laughs = b")" if kind == "tuples" else b"]"
            for n in range(levels):
                get = b"q" + bytes([n]) + b"0"
                inside = b"h" + bytes([n])
                laughs += get + (inside * 2 + code if kind == "tuples" else b"](" + inside * 10 + code)
            yield survived(f"{container}: {levels} levels of shared {kind}", wrapped(laughs))
    yield survived(f"{container}: a list in itself", wrapped(b"]q\x00h\x00a"))
    yield survived(f"{container}: a dict in itself", wrapped(b"}q\x00" + text("k") + b"h\x00s"))
    yield survived(f"{container}: a tuple in itself", wrapped(b"(]q\x00h\x00atq\x010h\x00h\x01a"))
    yield survived(f"{container}: the state of an object is itself", wrapped(b"cf\ng\n)Rq\x00h\x00b"))
    yield survived(f"{container}: the class of an object is itself", wrapped(b"cf\ng\n)Rq\x00h\x00)R"))
    names = b"".join(b"cm\nf%d\n0" % n for n in range(9 * THOUSAND)) + b"N"
    yield inert(f"{container}: 9,000 names", wrapped(names))
    more = b"".join(b"cm\nf%d\n0" % n for n in range(11 * THOUSAND)) + b"N"
    yield refused(f"{container}: 11,000 names", wrapped(more), "globals")
    long = b"".join(b"c" + b"m" * 4_000 + b"\nf%d\n0" % n for n in range(300)) + b"N"
    yield refused(f"{container}: a million characters of names", wrapped(long), "globals")
