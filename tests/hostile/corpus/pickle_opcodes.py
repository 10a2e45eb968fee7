"""Opcodes in wrong places, with too few values on the stack, or cut off; and pickles behind pickles."""

import pickle as stock
import pickletools

from tests.hostile.corpus.base import (
    AROUND,
    CONTAINERS,
    FLOATS,
    Files,
    inert,
    legacy,
    pickle,
    refused,
    storage,
    survived,
    tensor,
    zip_of,
    zipped,
)
from tests.hostile.make import text

KNOWN = {ord(opcode.code) for opcode in pickletools.opcodes}
WITH_ARGUMENT = [opcode for opcode in pickletools.opcodes if opcode.arg is not None]
BROKEN = (
    "stack-underflow",
    "stack-left",
    "truncated",
    "length",
    "extension",
    "buffer",
    "memo-unknown",
    "protocol",
    "value",
    "no-tensors",
    "additems",
    "global-name",
    "persistent-id",
    "storage-size",
    "setitem",
    "append",
    "memo-index",
    "utf-8",
    "arguments",
    "not-callable",
    "build",
    "trailing-bytes",
    "magic",
    "storage-keys",
    "opcode",
)


def files() -> Files:
    for container, around in AROUND.items():
        for code in range(256):
            rules = BROKEN if code in KNOWN else ("opcode",)
            yield refused(f"{container}: {code:#04x} on an empty stack", around(bytes([code]) + b"."), *rules)
    for container, wrapped in CONTAINERS.items():
        for opcode in WITH_ARGUMENT:
            data = wrapped(opcode.code.encode("latin-1"), 4)
            yield survived(f"{container}: {opcode.name} with the next opcodes as its argument", data)
        yield from calls(container)
    for code in sorted(set(range(256)) - KNOWN)[::4]:
        yield refused(f"{code:#04x} as a value", zipped(bytes([code])), "opcode")
    yield from behind()
    yield from protocols()


def calls(container: str) -> Files:
    """What a real unpickler would call, set or fill, done to what cannot be called, set or filled."""
    wrapped = CONTAINERS[container]
    for what, payload, rule in [
        ("calls a text", text("f") + b")R", "not-callable"),
        ("calls None", b"N)R", "not-callable"),
        ("calls a list", b"])R", "not-callable"),
        ("calls a tuple", b"))R", "not-callable"),
        ("calls with a list", b"cf\ng\n]R", "arguments"),
        ("calls with None", b"cf\ng\nNR", "arguments"),
        ("calls with a dict", b"cf\ng\n}R", "arguments"),
        ("makes with None", b"cf\ng\nN\x81", "arguments"),
        ("makes of a text", text("C") + b")\x81", "not-callable"),
        ("an OBJ of nothing", b"(o", "stack-underflow"),
        ("an OBJ of None", b"(No", "not-callable"),
        ("appends to None", b"NNa", "append"),
        ("appends to a dict", b"}Na", "append"),
        ("appends to a tuple", b")Na", "append"),
        ("sets an item of None", b"NNNs", "setitem"),
        ("sets an item of a list", b"]NNs", "setitem"),
        ("a key without value", b"}(Nu", "setitem"),
        ("a DICT of three", b"(NNNd", "setitem"),
        ("adds to a list", b"](N\x90", "additems"),
        ("adds to a frozenset", b"(N\x91(N\x90", "additems"),
        ("a list as a key", b"}]Ns", "unhashable"),
        ("a dict as a key in a tuple", b"}(}\x85Nu", "unhashable"),
        ("an OrderedDict as a key of an OrderedDict", b"ccollections\nOrderedDict\n)R" * 2 + b"Ns", "unhashable"),
        ("a set in a set", b"\x8f(\x8f\x90", "unhashable"),
        ("a list in a frozenset", b"(]\x91", "unhashable"),
        ("a set of lists", b"cbuiltins\nset\n]]a\x85R", "unhashable"),
        ("the state of None", b"NNb", "build"),
        ("the state of a dict", b"}}b", "build"),
        ("the state of a list", b"]}b", "build"),
        ("the state of a class", b"cf\ng\n}b", "build"),
        ("a global of numbers", b"K\x01K\x02\x93", "global-name"),
        ("a global of one text", text("a") + b"N\x93", "global-name"),
        ("a global over two lines", text("a\nb") + text("c") + b"\x93", "global-name"),
        ("a global of half a character", b"X\x03\0\0\0\xed\xa0\x80" + text("c") + b"\x93", "global-name"),
        ("a global of 5,000 characters", b"c" + b"m" * 5000 + b"\nf\n", "global-name"),
        ("a global that is no utf-8", b"c\xff\nf\n", "utf-8"),
        ("a persistent id in text", b"P0\n", "persistent-id"),
        ("a persistent id that is no ascii", b"P\xff\n", "utf-8"),
        ("an extension code", b"\x82\x01", "extension"),
        ("a buffer", b"\x97", "buffer"),
        ("a readonly buffer", b"N\x98", "buffer"),
        ("a mark that nobody takes", b"(N", "stack-underflow"),
        ("one value too many", b"NN", "setitem"),
        ("POP_MARK without a mark", b"11111", "stack-underflow"),
    ]:
        also = {"a mark that nobody takes": ("setitem",), "POP_MARK without a mark": ("truncated",)}.get(what, ())
        yield refused(f"{container}: {what}", wrapped(payload, 4), rule, *also)


def behind() -> Files:
    """A pickle that ends before the file does: some readers go on, others stop."""
    weight = tensor(storage())
    whole = pickle(weight, b"N")
    for what, after in {
        "a second pickle": b"\x80\x02N.",
        "itself": whole,
        "code": b"cos\nsystem\n(" + text("id") + b"tR.",
        "a zero": b"\0",
        "a newline": b"\n",
        "half a pickle": b"\x80\x04\x95",
        "a STOP": b".",
    }.items():
        yield refused(f"zip: {what} behind the pickle", zip_of(whole + after), "trailing-bytes")
        old = legacy(b"N").replace(b"u.", b"u." + after, 1)
        yield refused(
            f"legacy: {what} behind the object",
            old,
            "storage-keys",
            "opcode",
            "length",
            "truncated",
            "stack-underflow",
            "storage-size",
            "persistent-id",
            "plain-values",
        )
    for what, before in {"None": b"\x80\x02N.", "code": b"cos\nsystem\n(" + text("id") + b"tR."}.items():
        yield refused(f"zip: {what} and a pickle", zip_of(before + whole), "trailing-bytes")
    twice = stock.dumps({"weight": 1}, 2)
    yield refused(
        "an honest pickle that no checkpoint is in", zip_of(twice, {"data/0": FLOATS, "version": b"3"}), "no-tensors"
    )


def protocols() -> Files:
    for number in range(6, 256, 5):
        yield refused(f"protocol {number}", zipped(b"N", number), "protocol")
    for container, wrapped in CONTAINERS.items():
        yield refused(f"{container}: protocol 6 in the middle", wrapped(b"\x80\x06N"), "protocol")
        for number in range(6):
            yield inert(f"{container}: protocol {number}", wrapped(b"N", number))
            yield inert(f"{container}: protocol {number} in the middle", wrapped(b"\x80" + bytes([number]) + b"N"))
            yield inert(f"{container}: plain values of protocol {number}", wrapped(values(number), number))
    for length in (1, 2**32, 2**63, 2**64 - 1):
        frame = b"\x95" + length.to_bytes(8, "little")
        rule = ("length",) if length > 1 else ()
        data = zipped(frame + b"N", 4)
        yield refused(f"a frame of {length}", data, *rule) if rule else inert(f"a frame of {length}", data)


def values(protocol: int) -> bytes:
    """A pickle of plain values, without its protocol and its end, so that it can be a part of another."""
    plain = [
        None,
        True,
        False,
        0,
        -1,
        255,
        65535,
        2**31,
        -(2**63),
        2**100,
        1.5,
        float("inf"),
        "text",
        "\u00e9\U0001f600",
        "",
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        [],
        [1, [2]],
        {},
        {"a": {"b": 1}},
    ]
    whole = stock.dumps(plain, protocol)
    start = 0 if protocol < 2 else 2
    return whole[start:-1]
