"""The table of docs/formats.md: each kind of tensor survives exactly, or is left out and named."""

import io
from typing import Any

import pytest
import torch

from app.deliver.plan import Wanted
from app.errors import HostileCheckpoint
from app.formats.index import index
from app.formats.manifest_json import decode, encode
from app.select.query import StateDictQuery
from tests.deliver.planning import load, materialise, planned, save, served_file, served_state_dict
from tests.formats.kinds_of_tensors import LISTED, NOT_LISTED, per_channel
from tests.formats.torch_files import records, torch_zip

pytestmark = pytest.mark.filterwarnings("ignore")  # quantized, sparse and complex32 tensors all come with warnings

FORMATS: dict[str, dict[str, Any]] = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


def assert_same(have: torch.Tensor, want: torch.Tensor) -> None:
    for name in ("dtype", "layout", "device", "requires_grad", "is_quantized", "is_nested"):
        assert getattr(have, name) == getattr(want, name), name
    assert type(have) is type(want)
    if want.layout is not torch.strided or want.is_nested:
        assert str(have) == str(want)
        return
    assert (have.shape, have.stride(), have.is_conj(), have.is_neg()) == (
        want.shape, want.stride(), want.is_conj(), want.is_neg(),
    )  # fmt: skip
    if want.is_quantized:
        assert have.qscheme() == want.qscheme()
        assert str(have) == str(want)
    elif not want.is_meta:
        start, reach = want.storage_offset(), sum((n - 1) * s for n, s in zip(want.shape, want.stride(), strict=True))
        size = want.itemsize * (reach + 1) if want.numel() else 0
        mine = have.storage_offset() * want.itemsize
        assert (
            bytes(have.untyped_storage())[mine : mine + size]
            == bytes(want.untyped_storage())[start * want.itemsize : start * want.itemsize + size]
        )


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("kind", LISTED | NOT_LISTED)
def test_it_survives_exactly(kind: str, options: dict[str, Any]) -> None:
    want = (LISTED | NOT_LISTED)[kind]()
    file = save({"x": want, "y": torch.ones(2)}, **options)
    assert_same(load(served_file(file))["x"], want)
    assert_same(load(served_state_dict(file))["x"], want)
    assert list(load(served_state_dict(file, include=("x",)))) == ["x"]
    found = index(memoryview(file)).manifest
    assert found.unsafe_globals == ()
    assert found.components[0].keys == 2
    listed = [(tensor.dtype.name, tensor.shape) for tensor in found.tensors if tensor.key == "x"]
    assert listed == ([(str(want.dtype).removeprefix("torch."), want.shape)] if kind in LISTED else [])


def test_a_jagged_tensor_is_a_class_outside_of_weights_only_and_so_is_left_out_and_named() -> None:
    jagged = torch.nested.nested_tensor([torch.ones(2, 2), torch.zeros(3, 2)], layout=torch.jagged)
    file = save({"x": jagged, "y": torch.ones(2)})
    made = planned(file, Wanted(query=StateDictQuery()))
    assert list(load(materialise(made, file))) == ["y"]
    assert made.left_out == ("x",)
    assert index(memoryview(file)).manifest.unsafe_globals
    again = torch.load(io.BytesIO(served_file(file)), weights_only=False)["x"]
    assert [part.tolist() for part in again.unbind()] == [part.tolist() for part in jagged.unbind()]


@pytest.mark.parametrize("obj", [{"model": {"x": torch.empty(2, 3, device="meta")}}, [torch.empty(2, device="meta")]])
def test_a_checkpoint_of_meta_tensors_alone_is_one(obj: Any) -> None:
    file = save(obj)
    (tensor,) = index(memoryview(file)).manifest.tensors
    assert (tensor.storage, tensor.nbytes) == (None, 0)
    assert str(load(served_file(file))) == str(obj)
    if isinstance(obj, dict):
        again = served_state_dict(save({"model": {"x": torch.ones(2, 3)}}), device="meta")
        assert [tensor.shape for tensor in index(memoryview(again)).manifest.tensors] == [(2, 3)]


def test_a_lazy_parameter_is_listed_without_a_shape() -> None:
    file = save(torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.LazyLinear(2)).state_dict())
    manifest = index(memoryview(file)).manifest
    assert [(tensor.key, tensor.shape) for tensor in manifest.tensors] == [
        ("0.weight", (1, 1)), ("0.bias", (1,)), ("1.weight", None), ("1.bias", None),
    ]  # fmt: skip
    assert decode(encode(manifest)) == manifest
    made = planned(file, Wanted(query=StateDictQuery()))
    assert list(load(materialise(made, file))) == ["0.weight", "0.bias"]
    assert made.left_out == ("1.weight", "1.bias")


def test_half_bytes_that_reach_beyond_their_storage_are_refused() -> None:
    """Each row of a tensor of half bytes starts with a whole one: 2 x 5 take 6 bytes."""
    parts = records(save({"x": per_channel(torch.quint4x2)}))
    assert index(memoryview(torch_zip(parts))).manifest.tensors[0].shape == (2, 5)
    shape, stride = b"K\x02K%c\x86q", b"K%cK\x01\x86q"
    for columns, fits in ((6, True), (7, False)):
        wider = parts["data.pkl"].replace(shape % 5, shape % columns).replace(stride % 5, stride % columns)
        assert wider != parts["data.pkl"]
        file = torch_zip({**parts, "data.pkl": wider})
        if fits:
            index(memoryview(file))
            continue
        with pytest.raises(HostileCheckpoint) as refused:
            index(memoryview(file))
        assert refused.value.rule == "tensor-extent"


@pytest.mark.parametrize("call", [b")\x81", b"K\x01\x85\x81", b"}\x92"])
def test_a_quantized_tensor_that_was_not_called_for_is_not_listed(call: bytes) -> None:
    parts = records(save({"y": torch.ones(2)}))
    odd = b"X\x01\x00\x00\x00xctorch._utils\n_rebuild_qtensor\n" + call.replace(b"}\x92", b")}\x92") + b"s."
    file = torch_zip({**parts, "data.pkl": parts["data.pkl"][:-1] + odd})
    assert [tensor.key for tensor in index(memoryview(file)).manifest.tensors] == ["y"]
