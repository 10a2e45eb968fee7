"""Honest structures with names and numbers that are harmful to list, store, print or serve."""

import struct

from tests.hostile.corpus.base import AROUND, Files, Hostile, inert, pickle, refused, storage, tensor, zip_of
from tests.hostile.make import integer, text

WORDS = {
    "half a character": "\ud800",
    "two halves": "\udc00\ud800",
    "a NUL": "a\0b",
    "only a NUL": "\0",
    "nothing": "",
    "a newline": "a\r\nb",
    "a header": "x\r\nSet-Cookie: a=b",
    "an escape": "\x1b]0;x\x07",
    "right to left": "\u202etp.",
    "no character": "\uffff",
    "SQL": "'; DROP TABLE checkpoints; --",
    "HTML": "<script>alert(1)</script>",
    "a path": "../../etc/passwd",
    "a dot": ".",
    "dots": "a..b.",
    "a pattern": "(a+)+$",
    "JSON": '"}],"x":[{"',
    "percent": "%s%n%00",
    "emoji": "\U0001f600" * 50,
    "a wide one": "w" * 4000,
    "combining": "e" + "\u0301" * 500,
    "__proto__": "__proto__",
    "a surrogate pair": "\ud83d\ude00",
    "a byte order mark": "\ufeff",
}
NUMBERS = {
    "2^63": integer(2**63),
    "-2^63": integer(-(2**63)),
    "2^64": integer(2**64),
    "2^1000": integer(2**1000),
    "2^32000": b"\x8b" + struct.pack("<i", 4_000) + b"\x7f" * 4_000,
    "nan": b"G\x7f\xf8" + bytes(6),
    "inf": b"G\x7f\xf0" + bytes(6),
    "-inf": b"G\xff\xf0" + bytes(6),
    "-0.0": b"G\x80" + bytes(7),
    "a signalling nan": b"G\x7f\xf0\0\0\0\0\0\1",
    "the largest": b"G\x7f\xef" + b"\xff" * 6,
    "the smallest": b"G" + bytes(7) + b"\1",
    "true": b"\x88",
    "a text": text("1"),
    "nothing": b"N",
    "a list": b"]",
    "itself": b"h\0",
}


def quoted(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def dict_of(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"}q\0(" + b"".join(key + value for key, value in pairs) + b"u"


def files() -> Files:
    for container, around in AROUND.items():
        end = b"N" if container == "legacy" else b""
        weight = tensor(storage(end=end))
        model = (text("model"), dict_of((text("weight"), weight)))
        for what, word in WORDS.items():
            key = quoted(word)
            yield inert(f"{container}: a key of {what}", around(root((text("model"), dict_of((key, weight))))))
            yield inert(f"{container}: a component of {what}", around(root((key, dict_of((text("weight"), weight))))))
            yield inert(f"{container}: a fact named {what}", around(root(model, (key, b"K\5"))))
            yield inert(f"{container}: a fact that is {what}", around(root(model, (text("epoch"), key))))
            yield inert(f"{container}: an optimizer's {what}", around(root(model, optimizer(key, weight))))
            located = tensor(
                b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + key + integer(8) + end + b"tQ"
            )
            yield inert(
                f"{container}: a device called {what}",
                around(root((text("model"), dict_of((text("weight"), located))))),
            )
        for name, number in NUMBERS.items():
            for fact in ("epoch", "step", "loss", "accuracy"):
                yield inert(f"{container}: {fact} {name}", around(root(model, (text(fact), number))))
            rules = {"unhashable"} if name in {"a list", "itself"} else set()
            yield Hostile(f"{container}: a key {name}", around(root(model, (number, weight))), frozenset(rules))
            yield inert(f"{container}: an optimizer's lr {name}", around(root(model, optimizer(text("lr"), number))))
    yield refused(
        "a key of 5,000 letters",
        zip_of(root((text("model"), dict_of((text("w" * 5000), tensor(storage())))))),
        "key-length",
    )
    yield inert("an honest one", zip_of(pickle(tensor(storage()), b"N")))


def root(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"\x80\x02" + dict_of(*pairs) + b"."


def optimizer(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    groups = b"](" + dict_of((key, value), (text("params"), b"](K\0e")) + b"e"
    state = dict_of((b"K\0", dict_of((key, value))))
    return text("optimizer"), dict_of((text("state"), state), (text("param_groups"), groups))
