"""Tensors and storages that are missing or misplaced are refused, under the right rule."""

import io

import pytest
import torch

from app.errors import HostileCheckpoint
from app.formats.document import Document
from app.formats.pickle.nodes import Call
from app.formats.readers import read
from app.formats.torch_tensors import is_tensor, tensor_of
from tests.hostile.corpus.tensors import OUTSIDE
from tests.hostile.make import HOOKS, checkpoint, integer, integers, of_tensor, storage, tensor, text, with_tensor

DOUBLES = storage(4, kind="torch\nDoubleStorage")


def document(file: bytes) -> Document:
    return read(memoryview(file))


def rule(file: bytes) -> str | None:
    with pytest.raises(HostileCheckpoint) as refused:
        document(file)
    assert refused.value.where
    return refused.value.rule


def test_the_honest_one_is_read() -> None:
    doc = document(of_tensor(tensor()))
    assert tensor_of(doc.root.pairs[0][1]).shape == (2, 4)


@pytest.mark.parametrize(("shape", "stride", "offset"), OUTSIDE)
def test_a_tensor_outside_of_its_storage_is_refused(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    assert rule(of_tensor(tensor(shape, stride, offset))) == "tensor-extent"
    quantized = b"ctorch._utils\n_rebuild_qtensor\n(" + storage(32, kind="torch\nQInt8Storage")
    quantized += (
        integer(offset * 4) + integers(shape) + integers([step * 4 for step in stride]) + b"N\x89" + HOOKS + b"tR"
    )
    assert rule(of_tensor(quantized)) == "tensor-extent"


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        ((8,), (1,), 0),
        ((), (), 7),
        ((10**18,), (0,), 7),
        ((0, 5), (1, 1), 50),
        ((1, 8), (2**62, 1), 0),
        ((1,) * 64, (1,) * 64, 0),
    ],
)
def test_unusual_tensors_that_lie_within_are_read(shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> None:
    node = document(of_tensor(tensor(shape, stride, offset))).root.pairs[0][1]
    assert (tensor_of(node).shape, tensor_of(node).stride, tensor_of(node).offset) == (shape, stride, offset)


@pytest.mark.parametrize(("shape", "stride"), [((1,) * 65, (1,) * 65), ((1, 8), (1,)), ((8,), (1, 1)), ((), (1,))])
def test_dimensions_are_counted(shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
    assert rule(of_tensor(tensor(shape, stride))) == "tensor-dimensions"


@pytest.mark.parametrize(
    "arguments",
    [
        b")",
        b"N\x85",
        b"(NK\x00))\x89NtR",
        b"(" + storage() + b"K\x00))t",
        b"(" + storage() + b"K\x00))\x89NNNt",
        b"(" + storage() + b"K\x00N)\x89Nt",
        b"(" + storage() + b"K\x00)X\x01\x00\x00\x001\x89Nt",
        b"(" + storage() + b"K\x00K\x01K\x01\x89Nt",
        b"]",
    ],
)
def test_a_tensor_needs_its_arguments(arguments: bytes) -> None:
    assert rule(of_tensor(b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments.removesuffix(b"R") + b"R")) in {
        "tensor-arguments",
        "arguments",
    }


@pytest.mark.parametrize("size", [b"\x88", b"G" + bytes(8), text("1"), b"N", b")", integer(2**200)])
def test_sizes_strides_and_offsets_are_integers(size: bytes) -> None:
    start = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage()
    for offset, shape, stride in [(size, b"K\x01", b"K\x01"), (b"K\x00", size, b"K\x01"), (b"K\x00", b"K\x01", size)]:
        end = offset + shape + b"\x85" + stride + b"\x85\x89" + HOOKS + b"tR"
        assert rule(of_tensor(start + end)) == "tensor-extent"


NO_FLAGS = (b"K\x01", b"K\x00", b"G" + bytes(8), text("x"), b")", b"]", HOOKS, storage(), tensor())
DATA = b"K\x00K\x01\x85K\x01\x85"


@pytest.mark.parametrize("flag", [b"N", *NO_FLAGS])
def test_requires_grad_is_true_or_false(flag: bytes) -> None:
    """torch 2.13 says "must be a bool" to each, with whatever function it is rebuilt."""
    quantized = storage(32, kind="torch\nQInt8Storage") + DATA + b"N"
    for rebuilt in (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + DATA + flag + HOOKS + b"tR",
        b"ctorch._utils\n_rebuild_qtensor\n(" + quantized + flag + HOOKS + b"tR",
        b"ctorch._utils\n_rebuild_parameter\n(" + tensor() + flag + HOOKS + b"tR",
        b"ctorch._utils\n_rebuild_parameter_with_state\n(" + tensor() + flag + HOOKS + b"}tR",
        b"ctorch.nn.parameter\nParameter\n(" + tensor() + flag + b"tR",
    ):
        assert rule(of_tensor(rebuilt)) == "requires-grad"
        wrapped, arguments = rebuilt.removesuffix(b"R").split(b"(", 1)
        wrapped += b"ctorch\nTensor\n(" + arguments + b"}"
        assert rule(of_tensor(b"ctorch._tensor\n_rebuild_from_type_v2\n(" + wrapped + b"tR")) == "requires-grad"


@pytest.mark.parametrize("flag", [b"N", b"\x88", *NO_FLAGS])
def test_the_newest_function_takes_none_as_well(flag: bytes) -> None:
    """torch writes True, and cannot load it again; we can."""
    start = b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage(32, kind="torch.storage\nUntypedStorage") + DATA
    file = of_tensor(start + flag + HOOKS + b"ctorch\nfloat8_e5m2\ntR")
    if flag in NO_FLAGS:
        assert rule(file) == "requires-grad"
    else:
        document(file)


@pytest.mark.parametrize("kind", ["Long", "Bool", "QInt8"])
def test_integers_have_no_gradient(kind: str) -> None:
    for function, more in (("_rebuild_tensor_v2", b""), ("_rebuild_qtensor", b"N")):
        of = storage(4 if kind == "Long" else 32, kind=f"torch\n{kind}Storage")
        start = f"ctorch._utils\n{function}\n(".encode() + of + DATA + more
        assert rule(of_tensor(start + b"\x88" + HOOKS + b"tR")) == "requires-grad"
        document(of_tensor(start + b"\x89" + HOOKS + b"tR"))


@pytest.mark.parametrize("kind", ["Float", "ComplexFloat", "BFloat16"])
def test_floats_and_complex_may_have_one(kind: str) -> None:
    numel = {"Float": 8, "ComplexFloat": 4, "BFloat16": 16}[kind]
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(numel, kind=f"torch\n{kind}Storage") + DATA
    document(of_tensor(call + b"\x88" + HOOKS + b"tR"))


@pytest.mark.parametrize("hooks", [b"N", b"]", b"}", b"K\x05", text("x"), b")"])
def test_torch_takes_any_backward_hooks_and_so_do_we(hooks: bytes) -> None:
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + DATA + b"\x88" + hooks + b"tR"
    document(of_tensor(call))
    assert torch.load(io.BytesIO(of_tensor(call)), weights_only=True)["weight"].requires_grad


def test_a_tensor_of_any_dtype_counts_in_its_own_elements() -> None:
    start = b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage(32, kind="torch.storage\nUntypedStorage") + b"K\x00"
    for name, fits, beyond in [("float8_e4m3fn", 32, 33), ("uint16", 16, 17), ("uint64", 4, 5)]:
        end = b"K\x01\x85\x89" + HOOKS + f"ctorch\n{name}\n".encode() + b"tR"
        assert tensor_of(document(of_tensor(start + integer(fits) + b"\x85" + end)).root.pairs[0][1]).dtype.name == name
        assert rule(of_tensor(start + integer(beyond) + b"\x85" + end)) == "tensor-extent"
    for name in (b"cos\nsystem\n", b"N", b"K\x01"):
        assert rule(of_tensor(start + b"K\x01\x85K\x01\x85\x89" + HOOKS + name + b"tR")) == "tensor-arguments"


def test_a_dtype_of_the_future_stays_an_opaque_tensor() -> None:
    start = b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage(32, kind="torch.storage\nUntypedStorage")
    node = document(of_tensor(start + b"K\x00K\x01\x85K\x01\x85\x89" + HOOKS + b"ctorch\nfloat3\ntR")).root.pairs[0][1]
    assert type(node) is Call
    assert is_tensor(node)
    assert tensor_of(node) is None


@pytest.mark.parametrize(
    "arguments",
    [
        b")",
        b"(NNNt",
        b"(NNNNt",
        b"(ctorch._utils\n_rebuild_tensor_v2\nNNNt",
        b"(ctorch._utils\n_rebuild_tensor_v2\nN)Nt",
    ],
)
def test_a_tensor_subclass_needs_its_arguments(arguments: bytes) -> None:
    assert rule(of_tensor(b"ctorch._tensor\n_rebuild_from_type_v2\n" + arguments + b"R")) == "tensor-arguments"


def test_a_tensor_in_the_place_of_a_subclass_arguments_is_refused() -> None:
    arguments = b"(ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n" + tensor() + b"}t"
    assert rule(of_tensor(b"ctorch._tensor\n_rebuild_from_type_v2\n" + arguments + b"R")) == "tensor-arguments"


def test_a_subclass_of_a_tensor_outside_of_its_storage_is_refused() -> None:
    inner = b"(" + storage() + b"K\x00K\x09\x85K\x01\x85\x89" + HOOKS + b"t"
    arguments = b"(ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n" + inner + b"}t"
    assert rule(of_tensor(b"ctorch._tensor\n_rebuild_from_type_v2\n" + arguments + b"R")) == "tensor-extent"


@pytest.mark.parametrize(
    ("pid", "broken"),
    [
        (b"NQ", "persistent-id"),
        (b")Q", "persistent-id"),
        (b"K\x05Q", "persistent-id"),
        (text("storage") + b"\x85Q", "persistent-id"),
        (storage().replace(b"storage", b"seizure", 1), "persistent-id"),
        (b"(" + text("storage") + b"ctorch\nFloatStorage\nK\x00" + text("cpu") + b"K\x08tQ", "persistent-id"),
        (b"(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + b"K\x08tQ", "persistent-id"),
        (b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + b"NK\x08tQ", "persistent-id"),
        (b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"NtQ", "storage-size"),
        (b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"\x88tQ", "storage-size"),
        (storage(-1), "storage-size"),
        (storage(2**62), "storage-size"),
        (storage(2**2000), "storage-size"),
        (storage(7), "storage-size"),
        (storage(9), "storage-size"),
        (storage(kind="torch\nStringStorage"), "storage-class"),
        (storage(kind="evil\nFloatStorage"), "storage-class"),
        (storage(kind="torchevil\nFloatStorage"), "storage-class"),
        (storage(key="1"), "storage-missing"),
        (storage(key="../data.pkl"), "storage-missing"),
        (storage(key=""), "storage-missing"),
        (storage(key="0\0"), "storage-missing"),
        (b"(" + storage() + storage(4) + b"t", "storage-size"),
        (b"(" + storage() + DOUBLES + storage(8, kind="torch\nDoubleStorage") + b"t", "storage-size"),
        (b"(" + storage() + storage(location="cuda:0") + b"t", "storage-size"),
    ],
)  # fmt: skip
def test_a_storage_that_is_not_there_is_refused(pid: bytes, broken: str) -> None:
    assert rule(of_tensor(pid)) == broken


def test_one_storage_under_two_classes_is_the_first_as_in_torch() -> None:
    pids = b"(" + storage() + DOUBLES + storage(32, kind="torch.storage\nUntypedStorage")
    first, second, third = document(of_tensor(pids + b"t")).root.pairs[0][1]
    assert first is second is third
    assert first.dtype.name == "float32"


def test_an_empty_storage_may_have_several_classes() -> None:
    pids = b"(" + storage(0, "1") + storage(0, "1", kind="torch\nLongStorage") + b"t"
    pickle = b"\x80\x02" + pids + b"."
    first, second = document(checkpoint(pickle, {"1": b""})).root
    assert (first.dtype.name, second.dtype.name) == ("float32", "int64")


def test_code_in_a_pickle_is_kept_inert_and_named() -> None:
    doc = document(with_tensor(b"cos\nsystem\n" + text("touch /tmp/owned") + b"\x85R"))
    call = doc.root.pairs[1][1]
    assert type(call) is Call
    assert (call.function.full_name, call.args) == ("os.system", ("touch /tmp/owned",))
    assert doc.unsafe_globals == ("os.system",)


def test_names_are_judged_as_python_3_has_them() -> None:
    doc = document(with_tensor(b"c__builtin__\neval\n" + text("1") + b"\x85R"))
    assert doc.unsafe_globals == ("builtins.eval",)
    assert document(with_tensor(b"c__builtin__\nset\n]\x85R")).unsafe_globals == ()


def test_a_name_that_is_never_used_is_reported_too() -> None:
    assert document(with_tensor(b"cos\nsystem\n0N")).unsafe_globals == ("os.system",)


@pytest.mark.parametrize(
    "name",
    [
        "torch.distributed.tensor\nDTensor",
        "torch.distributed.tensor._api\nDTensor",
        "torch.distributed._tensor.api\nDTensor",
        "torch.distributed.tensor._dtensor_spec\nDTensorSpec",
        "torch.distributed._shard.sharded_tensor.api\nShardedTensor",
    ],
)
def test_shards_are_refused_wherever_they_are_named(name: str) -> None:
    from app.errors import ShardedTensor

    with pytest.raises(ShardedTensor, match="'x'"):
        document(with_tensor(f"c{name}\n)R".encode()))


def test_a_class_of_ones_own_called_dtensor_is_no_shard() -> None:
    assert document(with_tensor(b"cmy.models\nDTensor\n)R")).unsafe_globals == ("my.models.DTensor",)
