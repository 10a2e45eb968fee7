"""Small pickles that take endless work: their values are shared, so that walking or writing them visits each again and
again; and numbers and texts that are expensive to parse.

Each is refused or stored; in both cases within bounds.
"""

import struct

from tests.hostile.corpus.base import (
    CONTAINERS,
    Files,
    legacy,
    pickle,
    refused,
    storage,
    survived,
    tensor,
    zip_of,
    zipped,
)
from tests.hostile.make import HOOKS, integer, text

K = 1_000


def files() -> Files:
    """In one container what no container changes: each of these takes a second."""
    for what, payload in shared().items():
        yield survived(f"zip: {what}", zipped(b"(" + payload + b"l"))
    for what, payload in optimizers().items():
        yield survived(f"zip: {what}", zipped(payload))
    weight = tensor(storage())
    for what, payload in modules(weight).items():
        yield survived(f"zip: {what}", zip_of(pickle(weight, payload)))
    for what, payload in tensors(b"N").items():
        yield survived(f"legacy: {what}", legacy(b"(" + payload + b"l"))
    for container, wrapped in CONTAINERS.items():
        for what, code in literals().items():
            yield survived(f"{container}: {what}", wrapped(code, 0))
        for what, code in too_long().items():
            yield refused(f"{container}: {what}", wrapped(code, 0), "value")
        yield refused(f"{container}: an object of 11 states", wrapped(b"cf\ng\n)R" + b"}b" * 11), "build")


def kept(payload: bytes, slot: int = 1) -> bytes:
    """``payload``, numbered and taken off the stack; ``h`` and the number name it."""
    return payload + b"q" + bytes([slot]) + b"0"


def listed(item: bytes, times: int) -> bytes:
    return b"](" + item * times + b"e"


def dict_of(count: int, value: bytes = b"N") -> bytes:
    return b"}(" + b"".join(text(f"k{n}") + value for n in range(count)) + b"u"


def laughs(levels: int = 60) -> bytes:
    """A tuple of two times a tuple of two times a tuple ..."""
    return b")" + b"".join(b"q%bh%b\x86" % (bytes([n]), bytes([n])) for n in range(100, 100 + levels))


def shared() -> dict[str, bytes]:
    made = b"cf\ng\nh\x01R"
    return {
        "objects of one state": kept(dict_of(10 * K)) + listed(b"cf\ng\n)Rh\x01b", 5 * K),
        "objects called with one tuple": kept(b"(" + b"N" * 30 * K + b"t") + listed(made, 5 * K),
        "objects called with one list": kept(listed(b"N", 30 * K) + b"\x85") + listed(made, 5 * K),
        "sets of one list": kept(listed(b"K\x01", 30 * K) + b"\x85") + listed(b"cbuiltins\nset\nh\x01R", 5 * K),
        "sets of one tuple of tuples": kept(laughs(12), 2)
        + kept(listed(b"h\x02", 10 * K) + b"\x85")
        + listed(b"cbuiltins\nset\nh\x01\x81", 5 * K),
        "OrderedDicts of one list of pairs": kept(listed(text("a") + b"N\x86", 5 * K) + b"\x85")
        + listed(b"ccollections\nOrderedDict\nh\x01R", 5 * K),
        "OrderedDicts of one metadata": kept(b"}" + text("_metadata") + dict_of(10 * K) + b"s")
        + listed(b"ccollections\nOrderedDict\n)Rh\x01b", 5 * K),
        "tuples that share each other": laughs(),
        "bytes of one long text": kept(text("x" * 100 * K) + text("latin1") + b"\x86")
        + listed(b"c_codecs\nencode\nh\x01R", 20 * K),
        "one large integer again and again": kept(b"\x8b" + struct.pack("<i", 4_000) + b"\x7f" * 4_000)
        + listed(b"h\x01", 100 * K),
        "names of two halves": b"".join(kept(text(f"{'m' * 2_000}{n}"), n) for n in range(100))
        + b"".join(b"h%bh%b\x930" % (bytes([n]), bytes([m])) for n in range(100) for m in range(100)),
        "lists in each other, and a long one below": b"]" * 900 + listed(b"N", 100 * K) + b"a" * 900,
    }


def tensors(end: bytes) -> dict[str, bytes]:
    plain = storage(end=end) + integer(0)
    ones = b"(" + integer(1) * 64 + b"t"
    wide = b"(" + plain + ones + ones + b"\x89" + HOOKS + b"t"
    bits = b"(" + plain + b"K\x08\x85K\x01\x85\x89" + HOOKS + kept(dict_of(5 * K), 3) + b"h\x03t"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\nq\x020"
    one = kept(tensor(storage(end=end)))
    return {
        "tensors of 64 dimensions": rebuild + kept(wide) + listed(b"h\x02h\x01R", 20 * K),
        "tensors of one metadata": rebuild + kept(bits) + listed(b"h\x02h\x01R", 20 * K),
        "one tensor 50,000 times under a long name": one + b"}" + text("n" * 4_000) + listed(b"h\x01", 50 * K) + b"s",
        "one Parameter of Parameters of Parameters": kept(
            tensor(storage(end=end)) + b"".join(parameter() for _ in range(400))
        )
        + listed(b"h\x01", 50 * K),
        "Parameters with one state": kept(dict_of(5 * K), 3)
        + one
        + listed(b"ctorch._utils\n_rebuild_parameter_with_state\n(h\x01\x88" + HOOKS + b"h\x03tR", 5 * K),
        "Parameters with a state that shares itself": kept(laughs(), 3)
        + one
        + b"ctorch._utils\n_rebuild_parameter_with_state\n(h\x01\x88"
        + HOOKS
        + b"h\x03tR",
    }


def parameter() -> bytes:
    """Makes a Parameter of the tensor on the stack."""
    return b"q\x050ctorch._utils\n_rebuild_parameter\n(h\x05\x88" + HOOKS + b"tR"


def optimizers() -> dict[str, bytes]:
    groups = b"}(" + text("state") + b"}" + text("param_groups") + b"h\x01u"
    return {
        "param_groups of one long text": b"("
        + kept(text("x" * 100 * K), 2)
        + kept(listed(b"h\x02", 50 * K))
        + groups
        + b"l",
        "optimizers of the same param_groups": b"(" + kept(listed(b"N", 50 * K)) + listed(groups, 2 * K) + b"l",
    }


def modules(weight: bytes) -> dict[str, bytes]:
    def module(parameters: bytes, children: bytes, made: bytes = b"cm\nM\n)R") -> bytes:
        parts = text("_parameters") + parameters + text("_buffers") + b"}" + text("_modules") + children
        return made + b"}(" + parts + b"ub"

    inside = b"}" + text("_orig_mod") + b"h\x01s"
    compiled = b"ctorch._dynamo.eval_frame\nOptimizedModule\n"
    chain = kept(compiled * 300 + module(b"}", b"}") + b"\x85R" * 300)
    ways = b"}(" + b"".join(text(f"m{n}") + b"h\x01" for n in range(4 * K)) + b"u"
    many = b"(" + kept(weight, 3) + kept(dict_of(3 * K, b"h\x03"))
    children = b"}(" + b"".join(text(f"m{n}") + module(b"h\x01", b"}") for n in range(1 * K)) + b"u"
    return {
        "modules of the same parameters": many + module(b"}", children) + b"l",
        "a module of a parameter that shares itself": b"("
        + module(b"}(" + text("w") + weight + text("v") + laughs() + b"u", b"}")
        + b"l",
        "a compiled module of itself": kept(compiled + b")R") + b"h\x01" + module(b"}", inside, b"") + b"0h\x01",
        "many ways to a module that is compiled 300 times": chain + module(b"}", ways),
    }


def literals() -> dict[str, bytes]:
    """The longest that is read, or close to it."""
    ones = b"1" * 4_200
    return {
        "FLOATs of many digits": (b"F" + ones + b"\n0") * 50 + b"N",
        "FLOATs of many digits behind the point": (b"F0." + ones + b"\n0") * 50 + b"N",
        "FLOATs of many digits and a large exponent": (b"F" + ones + b".5e-4199\n0") * 50 + b"N",
        "INTs of many digits": (b"I" + ones + b"\n0") * 50 + b"N",
        "LONGs of many digits": (b"L-" + ones[1:] + b"L\n0") * 50 + b"N",
        "a STRING of escapes": b"S'" + b"\\x41" * 60 * K + b"'\n",
        "a STRING of backslashes": b"S'" + b"\\\\" * 120 * K + b"'\n",
        "a UNICODE of escapes": b"V" + b"\\U00010000" * 20 * K + b"\n",
        "a UNICODE of backslashes": b"V" + b"\\" * 240 * K + b"\n",
        "a SHORT_BINSTRING that is no utf-8": (b"U\xff" + b"a" * 254 + b"\xff0") * 1 * K + b"N",
    }


def too_long() -> dict[str, bytes]:
    many = b"1" * 200 * K
    return {
        f"{what} of 200,000 digits": code
        for what, code in {
            "a FLOAT": b"F" + many + b"\n",
            "no FLOAT": b"F" + many + b"x\n",
            "a FLOAT without its exponent": b"F-" + many + b"e\n",
            "a FLOAT with two points": b"F" + many + b"." + many[:10] + b".\n",
            "an INT": b"I" + many + b"\n",
            "no INT": b"I" + many + b"x\n",
            "a LONG": b"L" + many + b"L\n",
            "a GET": b"g" + many + b"\n",
            "a PUT": b"Np" + many + b"\n",
        }.items()
    } | {
        "a LONG4 of 5,000 bytes": b"\x8b" + struct.pack("<i", 5_000) + b"\x7f" * 5_000,
    }
