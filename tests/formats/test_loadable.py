"""A component always loads: calls that torch cannot carry out are left out of it and named. The judge is torch."""

import io
from typing import Any

import pytest
import torch

from app.deliver.plan import Wanted
from app.select.query import StateDictQuery
from tests.deliver.planning import load, materialise, planned
from tests.functional.torch_files import same
from tests.hostile.make import HOOKS, checkpoint, integer, storage, tensor, text

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of quantized and sparse tensors

ORDERED, COUNTER = b"ccollections\nOrderedDict\n", b"ccollections\nCounter\n"
SET, BYTES, COMPLEX = b"cbuiltins\nset\n", b"cbuiltins\nbytearray\n", b"cbuiltins\ncomplex\n"
ENCODE, SIZE, DEVICE = b"c_codecs\nencode\n", b"ctorch\nSize\n", b"ctorch\ndevice\n"
LAYOUT, PARAMETER = b"ctorch.serialization\n_get_layout\n", b"ctorch._utils\n_rebuild_parameter\n"
SPARSE = b"ctorch._utils\n_rebuild_sparse_tensor\n"
V2, V3 = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_tensor_v3\n"
FLOATS = storage() + b"K\x00K\x08\x85K\x01\x85"
UNTYPED, BITS = storage(32, kind="torch.storage\nUntypedStorage"), b"ctorch\nbits8\n"
RAW = UNTYPED + b"K\x00K\x08\x85K\x01\x85"
LONGS = V2 + b"(" + storage(4, "1", "torch\nLongStorage") + b"K\x00K\x04\x85K\x01\x85\x89" + HOOKS + b"tR"

QUANTIZED = (
    b"ctorch._utils\n_rebuild_qtensor\n("
    + storage(32, "2", "torch\nQInt8Storage")
    + b"K\x00K\x04\x85K\x01\x85(ctorch\nper_channel_affine\n%b%b%bt\x89"
    + HOOKS
    + b"tR"
)
META = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n"

KEPT = {
    "a per-channel tensor": QUANTIZED % (tensor((4,), (1,)), LONGS, b"K\x00"),
    "a per-channel tensor of lists": QUANTIZED
    % (b"](" + b"G?\xf0\0\0\0\0\0\0" * 4 + b"e", b"](K\0K\1K\2K\3e", b"K\x00"),
    "a meta tensor": META + b"(ctorch\nint8\nK\x02\x85K\x01\x85\x89tR",
    "an OrderedDict of pairs": ORDERED + b"](](" + text("a") + b"K\x01ee\x85R",
    "an OrderedDict with a state": ORDERED + b")R}" + text("_metadata") + b"}sb",
    "a Counter": COUNTER + b"}" + text("a") + b"K\x01s\x85R",
    "a set": SET + b"](K\x01K\x02e\x85R",
    "an empty set": SET + b")R",
    "bytes": ENCODE + text("\u00e9") + text("latin1") + b"\x86R",
    "a bytearray": BYTES + text("\u00e9") + text("latin-1") + b"\x86R",
    "a bytearray of bytes": BYTES + ENCODE + text("a") + text("latin1") + b"\x86R\x85R",
    "a complex number": COMPLEX + b"G" + bytes(8) + b"G" + bytes(8) + b"\x86R",
    "a Size": SIZE + b"K\x02K\x03\x86\x85R",
    "a device": DEVICE + text("cuda") + b"K\x01\x86R",
    "another device": DEVICE + text("cuda:1") + b"\x85R",
    "a layout": LAYOUT + text("torch.strided") + b"\x85R",
    "a Parameter": PARAMETER + b"(" + tensor() + b"\x88" + HOOKS + b"tR",
    "a Parameter of integers": PARAMETER + b"(" + LONGS + b"\x89" + HOOKS + b"tR",
    "a tensor of bits": V3 + b"(" + RAW + b"\x89" + HOOKS + BITS + b"tR",
    "a tensor of bits and no metadata": V3 + b"(" + RAW + b"N" + HOOKS + BITS + b"}tR",
    "a tensor with a neg bit": V2 + b"(" + FLOATS + b"\x89" + HOOKS + b"}" + text("neg") + b"\x88stR",
}
LEFT_OUT = {
    "bits with a gradient": V3 + b"(" + RAW + b"\x88" + HOOKS + BITS + b"tR",
    "bits whose gradient is a dict": V3 + b"(" + RAW + b"}" + HOOKS + BITS + b"tR",
    "bits whose metadata is a dtype": V3 + b"(" + RAW + b"\x89" + HOOKS + BITS + BITS + b"tR",
    "bits from a text on": V3 + b"(" + UNTYPED + text("x") + b"K\x08\x85K\x01\x85\x89" + HOOKS + BITS + b"tR",
    "bits beyond the storage": V3 + b"(" + UNTYPED + b"K\x19K\x08\x85K\x01\x85\x89" + HOOKS + BITS + b"tR",
    "a per-channel tensor without channels": QUANTIZED % (b"N", b"N", b"K\x00"),
    "a per-channel tensor of other channels": QUANTIZED % (tensor((3,), (1,)), LONGS, b"K\x00"),
    "a per-channel tensor along what it has not": QUANTIZED % (tensor((4,), (1,)), LONGS, b"K\x01"),
    "a meta tensor of one size": META + b"(ctorch\nint8\nK\x01K\x01\x89tR",
    "a meta tensor of more sizes than strides": META + b"(ctorch\nint8\nK\x01\x85)\x89tR",
    "a meta tensor that cannot be counted": META + b"(ctorch\nint8\n" + integer(2**62) * 2 + b"\x86K\x01\x85\x89tR",
    "a set of None": SET + b"N\x85R",
    "a set of two": SET + b"]]\x86R",
    "bytes of no encoding": ENCODE + text("a") + text("latin0") + b"\x86R",
    "bytes that are no latin1": ENCODE + text("\u0100") + text("latin1") + b"\x86R",
    "bytes of None": ENCODE + b"N\x85R",
    "a terabyte": BYTES + integer(2**60) + b"\x85R",
    "a bytearray of large numbers": BYTES + b"](M\x00\x01e\x85R",
    "a bytearray of text": BYTES + text("a") + b"\x85R",
    "a complex number of text": COMPLEX + text("x") + b"\x85R",
    "a complex number that is too large": COMPLEX + integer(10**400) + b"\x85R",
    "a Size of text": SIZE + text("ab") + b"\x85R",
    "a device that is none": DEVICE + text("cpu:007") + b"\x85R",
    "a device with two numbers": DEVICE + text("cpu:1") + b"K\x01\x86R",
    "a device below none": DEVICE + text("cpu") + integer(-1) + b"\x86R",
    "a layout that is none": LAYOUT + text("torch.stride") + b"\x85R",
    "an old tensor of a terabyte": b"ctorch\nFloatTensor\n" + integer(2**60) + b"\x85R",
    "a storage of a terabyte": b"ctorch.storage\nUntypedStorage\n" + integer(2**60) + b"\x85R",
    "a dtype that is called": b"ctorch\nfloat32\n)R",
    "a function that is made anew": b"c_codecs\nencode\n)\x81",
    "a sparse tensor of no layout": SPARSE + b"N)\x86R",
    "a sparse tensor of nothing": SPARSE + LAYOUT + text("torch.sparse_coo") + b"\x85R)\x86R",
    "a sparse tensor of too much": SPARSE + LAYOUT + text("torch.sparse_csr") + b"\x85R(NNNNNt\x86R",
    "floats with a conj bit": V2 + b"(" + FLOATS + b"\x89" + HOOKS + b"}" + text("conj") + b"\x88stR",
    "metadata of numbers": V2 + b"(" + FLOATS + b"\x89" + HOOKS + b"}K\x01\x88stR",
}


def flat(payload: bytes) -> bytes:
    """A state_dict with a tensor, and ``payload`` as extra state."""
    pickle = b"\x80\x02}(" + text("weight") + tensor() + text("x_extra_state") + payload + b"u."
    return checkpoint(pickle, {"0": bytes(32), **{key: bytes(32) for key in "12" if text(key) in payload}})


def served(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """The state_dict as torch loads it, and what is not in it."""
    plan = planned(data, Wanted(query=StateDictQuery()))
    return load(materialise(plan, data), map_location="cpu"), plan.left_out


@pytest.mark.parametrize("what", KEPT)
def test_what_torch_loads_is_kept(what: str) -> None:
    data = flat(KEPT[what])
    state_dict, left_out = served(data)
    assert same(dict(state_dict), torch.load(io.BytesIO(data), weights_only=True))
    assert left_out == ()


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_torch_cannot_load_is_left_out_and_named_and_the_rest_loads(what: str) -> None:
    data = flat(LEFT_OUT[what])
    with pytest.raises(Exception):  # noqa: B017 - torch raises whatever comes
        torch.load(io.BytesIO(data), weights_only=True)
    state_dict, left_out = served(data)
    assert list(state_dict) == ["weight"]
    assert [name.split(".")[0] for name in left_out] == ["x_extra_state"]


def test_a_parameter_that_cannot_have_a_gradient_comes_as_the_tensor_it_is() -> None:
    state_dict, left_out = served(flat(PARAMETER + b"(" + LONGS + b"\x88" + HOOKS + b"tR"))
    assert torch.equal(state_dict["x_extra_state"], torch.zeros(4, dtype=torch.int64))
    assert left_out == ()


def test_a_float8_tensor_with_a_gradient_which_torch_writes_and_cannot_load_is_served_without() -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(3).to(torch.float8_e5m2).requires_grad_()}, buffer)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    state_dict, left_out = served(buffer.getvalue())
    assert state_dict["weight"].tolist() == [1.0, 1.0, 1.0]
    assert not state_dict["weight"].requires_grad
    assert left_out == ()


@pytest.mark.parametrize("metadata", [b"K\x01", text("conj"), b"K\x01\x85", b"](Ne", b"\x88"])
def test_metadata_that_is_no_dict_is_refused(metadata: bytes) -> None:
    from app.errors import HostileCheckpoint

    for tensor_ in (
        V2 + b"(" + FLOATS + b"\x89" + HOOKS + metadata + b"tR",
        V3 + b"(" + RAW + b"\x89" + HOOKS + b"ctorch\nint8\n" + metadata + b"tR",
    ):
        with pytest.raises(HostileCheckpoint, match="metadata") as refused:
            served(flat(tensor_))
        assert refused.value.rule == "tensor-arguments"
