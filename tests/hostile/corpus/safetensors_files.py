"""safetensors headers that are not JSON, or have duplicates; tensors with holes, overlaps and impossible sizes."""

import json
from typing import Any

from tests.hostile.corpus.base import FLOATS, Files, inert, refused, safetensors

W = '{"dtype":"F32","shape":[8],"data_offsets":[0,32]}'


def header(**fields: Any) -> bytes:
    """One tensor, ``fields`` of it changed; None leaves a field out."""
    tensor = {"dtype": "F32", "shape": [8], "data_offsets": [0, 32], **fields}
    return json.dumps({"w": {name: value for name, value in tensor.items() if value is not None}}).encode()


def files() -> Files:
    honest = header()
    for length in (
        0,
        1,
        2,
        7,
        len(honest) - 1,
        len(honest) + 1,
        len(honest) + 32,
        len(honest) + 33,
        10**6,
        10**8,
        10**8 + 1,
        2**31,
        2**32,
        2**63,
        2**64 - 1,
    ):
        yield refused(
            f"a header of {length} bytes",
            safetensors(honest, length=length),
            "header-json",
            "truncated",
            "magic",
            "trailing-bytes",
        )
    for more in (1, 4, 32, 10**6):
        yield refused(f"{more} bytes behind", safetensors(honest, FLOATS + bytes(more)), "trailing-bytes")
    for size in (0, 1, 31):
        yield refused(f"{size} bytes of data", safetensors(honest, FLOATS[:size]), "truncated")
    yield from texts()
    yield from fields()
    yield from places()
    for blank in (b" ", b" " * 7, b" " * 4096):
        yield inert(f"{len(blank)} blanks behind the header", safetensors(honest + blank))


def texts() -> Files:
    for text in (
        b"{",
        b"{}}",
        b"{'w':1}",
        b"{w:1}",
        b'{"w":}',
        b"{,}",
        b'{"w":1,}',
        b"{//}",
        b"{\0}",
        b"{\xff}",
        b'{"w":"\x01"}',
        b'{"\xed\xa0\x80":1}',
        b'{"\\ud800":1}',
        b'{"\\x41":1}',
        b'{"w":NaN}',
        b'{"w":Infinity}',
        b'{"w":-Infinity}',
        b'{"w":01}',
        b'{"w":+1}',
        b'{"w":.5}',
        b'{"w":0x1}',
        b'{"w":' + b"9" * 5000 + b"}",
        b"{}\0",
        b"{} {}",
        b'{"a":1 "b":2}',
        "{\ufeff}".encode(),
    ):
        yield refused(f"header {text[:20]!r} ({len(text)})", safetensors(text), "header-json", "tensor-fields")
    for depth in (1_000, 100_000, 1_000_000):
        for opener, closer in ((b"[", b"]"), (b'{"a":', b"}")):
            deep = b'{"w":' + opener * depth + b"1" + closer * depth + b"}"
            yield refused(f"{depth} {opener!r} deep", safetensors(deep), "nesting", "tensor-fields", "header-json")
    one = W.encode()
    for what, text in {
        "a tensor": b'{"w":' + one + b',"w":' + one + b"}",
        "an escaped tensor": b'{"w":' + one + b',"\\u0077":' + one + b"}",
        "__metadata__": b'{"__metadata__":{},"__metadata__":{},"w":' + one + b"}",
        "a text of __metadata__": b'{"__metadata__":{"a":"1","a":"2"},"w":' + one + b"}",
        "dtype": b'{"w":{"dtype":"F32","dtype":"I32","shape":[8],"data_offsets":[0,32]}}',
        "shape": b'{"w":{"dtype":"F32","shape":[8],"shape":[8],"data_offsets":[0,32]}}',
        "data_offsets": b'{"w":{"dtype":"F32","shape":[8],"data_offsets":[0,0],"data_offsets":[0,32]}}',
        "an escaped dtype": b'{"w":{"dtype":"F32","d\\u0074ype":"I32","shape":[8],"data_offsets":[0,32]}}',
    }.items():
        yield refused(f"twice: {what}", safetensors(text), "duplicate-key")
    for metadata in ("null", "[]", '"x"', "1", '{"a":1}', '{"a":null}', '{"a":{}}', '{"a":["b"]}', "true"):
        text = f'{{"__metadata__":{metadata},"w":{W}}}'.encode()
        yield refused(f"__metadata__ {metadata}", safetensors(text), "metadata")
    long = json.dumps({"__metadata__": {"a": "x" * 4_000_001}, "w": json.loads(W)}).encode()
    yield refused("__metadata__ of 4 MB", safetensors(long), "metadata")
    for name in (
        "",
        " ",
        "\n",
        "..",
        "/etc/passwd",
        "w\0",
        "\u202e",
        "__proto__",
        "constructor",
        "a" * 4000,
        "__metadata__ ",
    ):
        yield inert(f"a tensor named {name[:20]!r}", safetensors(json.dumps({name: json.loads(W)}).encode()))
    yield refused(
        "a name of 5,000 letters", safetensors(json.dumps({"a" * 5000: json.loads(W)}).encode()), "key-length"
    )
    for value in ("1", '"x"', "[]", "{}", "null", "true"):
        yield refused(f"a tensor that is {value}", safetensors(f'{{"w":{value}}}'.encode()), "tensor-fields")
    yield refused("no tensor", safetensors(b"{}", b""), "no-tensors")
    many = b'{"w":[' + b"[]," * 30_000 + b"[]]}"
    yield refused("a list of 30,000 lists", safetensors(many), "tensor-fields")


def fields() -> Files:
    for size in (-1, 1.0, 8.0, "8", None, True, [8], 2**63, 2**64, 10**400, -0.0, {}):
        yield refused(
            f"a size {size!r}"[:40], safetensors(header(shape=[size])), "tensor-fields", "header-json", "tensor-extent"
        )
    yield refused(
        "a size -0",
        safetensors(b'{"w":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', b""),
        "header-json",
        "tensor-fields",
    )
    yield refused(
        "an offset -0",
        safetensors(W.replace("[0,", "[-0,").join(['{"w":', "}"]).encode()),
        "header-json",
        "tensor-fields",
    )
    for shape in (
        [9],
        [7],
        [8, 2],
        [0],
        [2**62, 4],
        [2**32, 2**32],
        [2**62, 2**62],
        [0, 2**63],
        [2**63 - 1],
        [],
        8,
        "8",
        {},
    ):
        yield refused(f"shape {shape!r}", safetensors(header(shape=shape)), "tensor-extent", "tensor-fields")
    for count in (65, 1000):
        yield refused(f"{count} dimensions", safetensors(header(shape=[1] * count)), "tensor-dimensions")
    yield inert("64 dimensions", safetensors(header(shape=[1] * 63 + [8])))
    for dtype in (
        "f32",
        "F33",
        "",
        "F32 ",
        "float32",
        "F128",
        None,
        1,
        ["F32"],
        "F6_E2M3",
        "F6_E3M2",
        "F4",
        "U1",
        "Q8",
        "F" * 10**5,
    ):
        yield refused(
            f"dtype {dtype!r}"[:40], safetensors(header(dtype=dtype)), "dtype", "tensor-fields", "tensor-extent"
        )
    for extra in ("x", "strides", "storage_offset", "Dtype", "device"):
        yield refused(f"a field {extra}", safetensors(header(**{extra: 1})), "tensor-fields")
    for name in ("dtype", "shape", "data_offsets"):
        yield refused(f"no {name}", safetensors(header(**{name: None})), "tensor-fields")


def places() -> Files:
    for offsets in (
        [1, 33],
        [0, 31],
        [0, 33],
        [32, 0],
        [0, 0],
        [0],
        [],
        [0, 32, 64],
        [-1, 31],
        [0, 2**63],
        [0, 2**64],
        [2**63, 2**63],
        ["0", "32"],
        [0.0, 32.0],
        None,
        0,
        {"start": 0},
        [True, 32],
    ):
        yield refused(
            f"offsets {offsets!r}",
            safetensors(header(data_offsets=offsets)),
            "tensor-fields",
            "tensor-extent",
            "tensor-gap",
            "truncated",
        )
    for what, (first, second) in {
        "overlap": ([0, 32], [16, 48]),
        "hole": ([0, 32], [36, 68]),
        "same": ([0, 32], [0, 32]),
        "within": ([0, 64], [16, 48]),
        "behind": ([0, 32], [64, 96]),
        "second first, with a hole": ([64, 96], [0, 32]),
    }.items():
        made = {
            name: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
            for name, (start, end) in {"a": first, "b": second}.items()
        }
        size = max(first[1], second[1])
        yield refused(
            f"two tensors: {what}", safetensors(json.dumps(made).encode(), bytes(size)), "tensor-overlap", "tensor-gap"
        )
    swapped = {
        name: {"dtype": "U8", "shape": [4], "data_offsets": at} for name, at in {"a": [4, 8], "b": [0, 4]}.items()
    }
    yield inert("tensors in another order", safetensors(json.dumps(swapped).encode(), bytes(8)))
    empty = {str(n): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(1000)}
    yield inert("a thousand empty tensors", safetensors(json.dumps(empty).encode(), b""))
