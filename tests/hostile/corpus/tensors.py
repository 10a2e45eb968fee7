"""Tensors that exceed their storage, or cannot be counted; storages that are missing or contradictory."""

from collections.abc import Callable

from tests.hostile.corpus.base import CONTAINERS, Files, inert, refused, storage, tensor
from tests.hostile.make import HOOKS, integer, integers, text

OUTSIDE = [
    ((8,), (1,), 1),
    ((9,), (1,), 0),
    ((2, 4), (5, 1), 0),
    ((1,), (1,), 8),
    ((), (), 8),
    ((8,), (1,), -1),
    ((-8,), (1,), 0),
    ((2,), (-1,), 4),
    ((-1, -8), (1, 1), 0),
    ((2**62,), (1,), 0),
    ((2**64,), (0,), 0),
    ((1,), (2**64,), 0),
    ((1,), (1,), 2**64),
    ((2**40, 2**40), (0, 0), 0),
    ((0, 2**70), (1, 1), 0),
    ((0, 2), (2**70, 1), 0),
    ((2**30,) * 10, (0,) * 10, 0),
    ((2**63 - 1,), (1,), 0),
    ((2, 2), (2**62, 2**62), 0),
    ((2**32, 2**31), (1, 1), 0),
    ((8,), (2**61,), 0),
    ((1,), (1,), 2**61),
    ((1,) * 63 + (9,), (1,) * 64, 0),
]
INSIDE = [
    ((8,), (1,), 0),
    ((), (), 7),
    ((10**18,), (0,), 7),
    ((0, 5), (1, 1), 50),
    ((1, 8), (2**62, 1), 0),
    ((1,) * 64, (1,) * 64, 0),
    ((0,), (1,), 2**40),
    ((3, 3), (2, 1), 1),
    ((2, 2, 2), (0, 0, 1), 0),
    ((0,) * 10, (0,) * 10, 0),
]
WRONG_COUNT = [
    ((1,) * 65, (1,) * 65),
    ((1, 8), (1,)),
    ((8,), (1, 1)),
    ((), (1,)),
    ((1,) * 1000, (1,) * 1000),
    ((1,), ()),
]


def files() -> Files:
    for container, wrapped in CONTAINERS.items():
        end = b"N" if container == "legacy" else b""
        of = storage(end=end)
        for shape, stride, offset in OUTSIDE:
            name = f"{shape[:2]} ({len(shape)}) by {stride[:2]} at {offset}"
            yield refused(f"{container}: {name}", wrapped(tensor(of, shape, stride, offset)), "tensor-extent")
            yield refused(
                f"{container}: quantized {name}",
                wrapped(quantized(end, shape, stride, offset)),
                "tensor-extent",
                "storage-size",
            )
        for shape, stride, offset in INSIDE:
            name = f"{container}: inside, {shape[:2]} ({len(shape)}) by {stride[:2]} at {offset}"
            yield inert(name, wrapped(tensor(of, shape, stride, offset)))
        for shape, stride in WRONG_COUNT:
            name = f"{container}: {len(shape)} sizes {shape[:2]}, {len(stride)} strides"
            yield refused(name, wrapped(tensor(of, shape, stride)), "tensor-dimensions")
        yield from arguments(container, of)
        yield from storages(container, lambda end=end, **changed: storage(**{"end": end, **changed}))
        for name in (
            "_rebuild_sparse_tensor",
            "_rebuild_nested_tensor",
            "_rebuild_wrapper_subclass",
            "_rebuild_meta_tensor_no_storage",
            "_rebuild_device_tensor_from_numpy",
            "_rebuild_parameter",
        ):
            for args in (b")", b"N\x85", b"((t"):
                call = f"ctorch._utils\n{name}\n".encode() + args.replace(b"((t", b"(])t") + b"R"
                made = f"{container}: {name} of {args!r}"
                if name == "_rebuild_parameter" and args == b"((t":
                    yield refused(made, wrapped(call), "requires-grad")
                else:
                    yield inert(made, wrapped(call))


def quantized(end: bytes, shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> bytes:
    of = storage(32, kind="torch\nQInt8Storage", end=end)
    steps = tuple(step * 4 for step in stride)
    args = of + integer(offset * 4) + integers(shape) + integers(steps) + b"N\x89" + HOOKS
    return b"ctorch._utils\n_rebuild_qtensor\n(" + args + b"tR"


def arguments(container: str, of: bytes) -> Files:
    wrapped = CONTAINERS[container]
    for size in (b"\x88", b"G" + bytes(8), text("1"), b"N", b")", integer(2**200), b"cm\nf\n", of):
        for place in range(3):
            parts = [b"K\x00", b"K\x01", b"K\x01"]
            parts[place] = size
            call = of + parts[0] + parts[1] + b"\x85" + parts[2] + b"\x85\x89" + HOOKS
            call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + call + b"tR"
            yield refused(f"{container}: argument {place + 1} is {size[:20]!r}", wrapped(call), "tensor-extent")
    for args in (
        b")",
        b"N\x85",
        b"(NK\x00))\x89NtR",
        b"(" + of + b"K\x00))t",
        b"(" + of + b"K\x00))\x89NNNt",
        b"(" + of + b"K\x00N)\x89Nt",
        b"(" + of * 6 + b"t",
    ):
        call = b"ctorch._utils\n_rebuild_tensor_v2\n" + args.removesuffix(b"R") + b"R"
        yield refused(
            f"{container}: a tensor of {args[:8]!r} ({len(args)})", wrapped(call), "tensor-arguments", "tensor-extent"
        )


Storage = Callable[..., bytes]


def storages(container: str, make: Storage) -> Files:
    wrapped = CONTAINERS[container]
    legacy = container == "legacy"
    for pid in (
        b"NQ",
        b")Q",
        b"K\x05Q",
        b"]Q",
        b"}Q",
        text("storage") + b"\x85Q",
        make().replace(b"storage", b"seizure", 1),
        make(key="0").replace(text("0"), b"K\x00", 1),
        make().replace(text("cpu"), b"N", 1),
        make().replace(b"ctorch\nFloatStorage\n", text("FloatStorage")),
        b"(NNNNNNNtQ",
    ):
        yield refused(f"{container}: persistent id {pid[:12]!r} ({len(pid)})", wrapped(pid), "persistent-id")
    for numel in (-1, 2**61, 2**62, 2**64, 2**2000, 7, 9, 0):
        yield refused(
            f"{container}: a storage of {numel.bit_length()} bits of elements, {numel % 100}",
            wrapped(make(numel=numel)),
            "storage-size",
        )
    for kind in (
        "torch\nStringStorage",
        "evil\nFloatStorage",
        "torchevil\nFloatStorage",
        "torch\nfloat32",
        "os\nsystem",
        "torch\nFloatStorage.x",
    ):
        yield refused(f"{container}: a storage of class {kind!r}", wrapped(make(kind=kind)), "storage-class")
    for key in ("1", "../data.pkl", "", "0\0", "00", "0 ", "data/0", "/0", "O", "0/", "x" * 5000):
        yield refused(f"{container}: storage key {key[:20]!r}", wrapped(make(key=key)), "storage-missing")
    both = {"a larger": make(numel=9), "elsewhere": make(location="cuda:0"), "a smaller": make(numel=4)}
    for what, other in both.items():
        yield refused(
            f"{container}: one storage, and again {what}", wrapped(b"(" + make() + other + b"t"), "storage-size"
        )
    for location in ("cuda:99", "meta", "no such device", "", "cpu\0", "x" * 1000, "\u202e", "mps", "cuda:-1"):
        for numel in (8,):
            lone = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text(location) + integer(numel)
            lone += (b"N" if legacy else b"") + b"tQ"
            yield refused(f"{container}: it lies on cpu and on {location[:16]!r}", wrapped(lone), "storage-size")
