"""Numbers and texts that Python's two unpicklers, or other readers, may read differently."""

import struct

from tests.hostile.corpus.base import CONTAINERS, Files, inert, refused

NUMBERS = {
    b"I": [
        b"010",
        b"0x10",
        b"1_000",
        b" 1",
        b"1 ",
        b"+1",
        b"",
        b"-",
        b"one",
        b"1L",
        b"\xd9\xa3",
        b"000",
        b"0b1",
        b"1.0",
        b"1e3",
        b"9" * 5000,
    ],
    b"L": [b"010L", b"0x10L", b"1_000L", b" 1L", b"1 L", b"+1L", b"L", b"", b"LL", b"1LL", b"oneL", b"9" * 5000 + b"L"],
    b"F": [
        b"1_0.0",
        b" 1.0",
        b"1.0 ",
        b"",
        b"one",
        b"0x1p3",
        b"+1.0",
        b"infinity",
        b"1,0",
        b"nan(1)",
        b"Inf",
        b"NaN",
        b"1" * 5000,
        b"1" * 5000 + b"x",
    ],
    b"p": [b"x", b"", b"-1", b"1_0", b" 1", b"+1", b"4294967296", b"9" * 5000],
    b"g": [b"x", b"", b"-1", b"1_0", b" 1", b"+1", b"4294967296", b"9" * 5000],
}
"""By opcode."""
CLEAR = {
    b"I": [b"0", b"1", b"-1", b"-0", b"00", b"01", b"10", b"2147483648", b"-9223372036854775808"],
    b"L": [b"0L", b"-0L", b"1", b"-1L", b"9" * 4000 + b"L"],
    b"F": [b"1.5", b"-1.5", b"1e300", b"1e400", b"nan", b"inf", b"-inf", b"0.0", b"1", b"1e-05", b"0." + b"1" * 4200],
}
QUOTED = [b"", b"'", b"x", b"'x", b"'x\"", b"x'", b"'\\x'", b"'\\xg0'", b"'a' ", b" 'a'", b"'\\'"]


def files() -> Files:
    for container, wrapped in CONTAINERS.items():
        for code, forms in NUMBERS.items():
            for form in forms:
                payload = (b"N" if code == b"p" else b"") + code + form + b"\n"
                yield refused(
                    f"{container}: {code.decode()} {form[:12]!r} ({len(form)})",
                    wrapped(payload, 0),
                    "value",
                    "memo-index",
                    "memo-unknown",
                )
        for code, forms in CLEAR.items():
            for form in forms:
                yield inert(
                    f"{container}: {code.decode()} {form[:12]!r} ({len(form)})", wrapped(code + form + b"\n", 0)
                )
        for form in QUOTED:
            yield refused(f"{container}: a STRING {form!r}", wrapped(b"S" + form + b"\n", 0), "value")
        for form in (b"'a'", b"''", b"'\\n'", b"'\\xe9'", b"'\"'"):
            yield inert(f"{container}: a STRING {form!r}", wrapped(b"S" + form + b"\n", 0))
        yield from texts(container)
        yield from integers(container)


def texts(container: str) -> Files:
    wrapped = CONTAINERS[container]
    for what, raw in {
        "half a character": b"\xed\xa0\x80",
        "NULs": bytes(8),
        "a BOM": b"\xef\xbb\xbf",
        "right to left": "\u202e".encode(),
        "a newline": b"\n",
        "a million": b"x" * 10**6,
    }.items():
        yield inert(f"{container}: text of {what}", wrapped(b"X" + struct.pack("<I", len(raw)) + raw))
    for raw in (b"\xff", b"\xc0\x80", b"\xe9", b"\xf5\x80\x80\x80", b"\xed\xa0"):
        yield refused(f"{container}: text {raw!r}", wrapped(b"X" + struct.pack("<I", len(raw)) + raw), "utf-8")
        yield inert(f"{container}: a str of Python 2, {raw!r}", wrapped(b"U" + bytes([len(raw)]) + raw))
    for raw, *rules in [
        (b"\\u00e9",),
        (b"\xe9",),
        (b"\\ud800",),
        (b"\\U00110000", "utf-8"),
        (b"\\u12", "utf-8"),
        (b"",),
    ]:
        data = wrapped(b"V" + raw + b"\n", 0)
        name = f"{container}: a UNICODE {raw!r}"
        yield refused(name, data, *rules) if rules else inert(name, data)
    for code, width in (
        (b"X", 4),
        (b"B", 4),
        (b"T", 4),
        (b"\x8d", 8),
        (b"\x8e", 8),
        (b"\x96", 8),
        (b"C", 1),
        (b"U", 1),
        (b"\x8c", 1),
        (b"\x8b", 4),
        (b"\x8a", 1),
    ):
        for length in (2 ** (8 * width) - 1, 2 ** (8 * width - 1), 250):
            data = wrapped(code + length.to_bytes(width, "little"), 4)
            long = refused(f"{container}: {code!r} of {length}, that is not there", data, "length")
            if container == "zip" or length > 250:
                yield long


def integers(container: str) -> Files:
    wrapped = CONTAINERS[container]
    for size in (0, 1, 8, 9, 255):
        yield inert(f"{container}: an integer of {size} bytes", wrapped(b"\x8a" + bytes([size]) + b"\x7f" * size))
    for size in (0, 1_000, 4_096):
        yield inert(
            f"{container}: a long integer of {size} bytes", wrapped(b"\x8b" + struct.pack("<i", size) + b"\x7f" * size)
        )
