"""TorchScript archives: invalid text, or too much of it, and modules whose tensors have two names."""

import zlib

from tests.formats.zips import Entry, Zip
from tests.hostile.corpus.base import FLOATS, Files, inert, refused, storage, tensor
from tests.hostile.make import text

CODE = b"""class Net(Module):
  __parameters__ = ["weight", ]
  __buffers__ = []
  weight : Tensor
"""


def module(*attributes: tuple[str, bytes]) -> bytes:
    state = b"}" + b"".join(text(name) + value + b"s" for name, value in attributes)
    return b"\x80\x02c__torch__\nNet\n)\x81" + state + b"b."


HONEST_MODULE = module(("weight", tensor(storage())))
LINE = Entry(b"r/code/__torch__.py", CODE)


def program(pickle: bytes = HONEST_MODULE, *code: Entry, constants: bytes = b"\x80\x02).") -> bytes:
    made = [Entry(b"r/data.pkl", pickle), Entry(b"r/data/0", FLOATS), *(code or [LINE])]
    return Zip([*made, Entry(b"r/constants.pkl", constants), Entry(b"r/version", b"3\n")]).build()


def deflated(
    content: bytes,
    name: bytes = b"r/code/__torch__.py",
    *,
    size: int | None = None,
    packed: bytes | None = None,
    crc32: int | None = None,
) -> Entry:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    small = packer.compress(content) + packer.flush() if packed is None else packed
    return Entry(
        name,
        small,
        method=8,
        flags=0x0800,
        crc32=zlib.crc32(content) if crc32 is None else crc32,
        central={"size": len(content) if size is None else size},
    )


def files() -> Files:
    yield inert("an honest one", program())
    yield inert("an honest one, deflated", program(HONEST_MODULE, deflated(CODE)))
    yield from codes()
    yield from modules()
    for constants in (b"", b"cos\nsystem\n.", b"\xff", b"." * 10**6):
        yield inert(f"constants {constants[:12]!r}", program(constants=constants))


def codes() -> Files:
    for size in (0, 1, len(CODE) - 1, len(CODE) + 1, 16 * 2**20):
        yield refused(f"code that says {size} bytes", program(HONEST_MODULE, deflated(CODE, size=size)), "zip-deflated")
    for packed in (b"", b"\xff" * 20, b"\x03\0" + b"more", zlib.compress(CODE)):
        yield refused(
            f"code packed as {packed[:8]!r}",
            program(HONEST_MODULE, deflated(CODE, packed=packed)),
            "zip-deflated",
            "zip-overlap",
        )
    yield refused("code with another CRC32", program(HONEST_MODULE, deflated(CODE, crc32=1)), "zip-crc")
    yield refused("code of 17 MB", program(HONEST_MODULE, deflated(b"#" * (17 * 2**20))), "code-size")
    for number in (2, 17):
        bombs = [deflated(bytes(2**20), b"r/code/%d.py" % n) for n in range(number)]
        made = program(HONEST_MODULE, LINE, *bombs)
        yield (
            refused(f"{number} MB of zeros", made, "code-size") if number > 16 else inert(f"{number} MB of zeros", made)
        )
    for what, filler in {
        "lines": b"\n",
        "heads": b"class ",
        "quotes": b'"',
        "names": b'"a", ',
        "brackets": b"[",
    }.items():
        endless = CODE + b"class X(Module):\n  __parameters__ = [" + filler * (2 * 2**20 // len(filler))
        yield inert(f"2 MB of {what}", program(HONEST_MODULE, deflated(endless)))
    stored = b"\0\0\0\xff\xff" * 3_600_000 + b"\x03\0"
    yield refused(
        "18 MB that are deflated to nothing",
        program(HONEST_MODULE, LINE, deflated(b"", b"r/code/x.py", packed=stored)),
        "code-size",
    )
    for raw in (b"\xff\xff", b"\xed\xa0\x80", CODE[:-1] + b"\xe9\n"):
        yield refused(f"code {raw[-4:]!r}", program(HONEST_MODULE, Entry(b"r/code/__torch__.py", raw)), "utf-8")
    for what, more in {
        "the class twice": [Entry(b"r/code/__torch__.py", CODE + CODE)],
        "the class as another": [Entry(b"r/code/__torch__.py", CODE + CODE.replace(b"weight", b"other"))],
    }.items():
        yield refused(what, program(HONEST_MODULE, *more), "torchscript-names")
    nested = CODE.replace(b"Net", b"Inner")
    dotted = [LINE, Entry(b"r/code/__torch__/a/b.py", nested), Entry(b"r/code/__torch__/a.b.py", nested)]
    yield refused("one module in two files", program(HONEST_MODULE, *dotted), "torchscript-names")
    for what, code in {
        "no code": b"",
        "no class": b"x = 1\n",
        "no parameters": CODE.replace(b'"weight", ', b""),
        "a class in a text": b'x = """\n' + CODE.replace(b"Net", b"Not") + b'"""\n',
    }.items():
        made = program(HONEST_MODULE, Entry(b"r/code/__torch__.py", code, flags=0x0808 if code else 0x0800))
        yield inert(f"a program of {what}", made)


def modules() -> Files:
    weight = tensor(storage())
    inner = module(("weight", weight))[2:-1]
    parameter = Entry(b"r/code/__torch__.py", CODE.replace(b'"weight"', b'"a.b"'))
    yield refused("a dotted parameter", program(module(("a.b", weight)), parameter), "torchscript-names")
    yield inert("a dotted name that is no parameter's", program(module(("weight", weight), ("a.b", weight))))
    for what, pickle in {
        "a dotted module": module(("weight", weight), ("a.b", inner)),
        "a name twice": module(("weight", weight), ("weight", weight)),
        "a name that is none": b"\x80\x02c__torch__\nNet\n)\x81}N" + weight + b"sb.",
    }.items():
        yield refused(what, program(pickle), "torchscript-names")
    for depth in (10, 200):
        deep = inner
        for _ in range(depth):
            deep = module(("m", deep))[2:-1]
        yield inert(f"modules {depth} deep", program(b"\x80\x02" + deep + b"."))
    yield inert(
        "a module in itself",
        program(b"\x80\x02c__torch__\nNet\n)\x81q\x00}" + text("m") + b"h\x00s" + text("weight") + weight + b"sb."),
    )
    evil = module(("weight", weight), ("x", b"cos\nsystem\n" + text("id") + b"\x85R"))
    yield inert("code in a module", program(evil))
    yield inert("a checkpoint that is no module", program(b"\x80\x02}" + text("w") + weight + b"s."))
    laughs = inner + b"q\x000"
    for level in range(12):
        names = b"".join(text(f"m{n}") + b"h" + bytes([level]) + b"s" for n in range(8))
        laughs += b"c__torch__\nNet\n)\x81}" + names + b"b" + b"q" + bytes([level + 1]) + b"0"
    yield refused("modules that share modules", program(b"\x80\x02" + laughs + b"h\x0c."), "too-much-work")
