"""Tensors of devices without storages (xla, maia): torch writes the device as an argument of a call."""

from typing import Any

import pytest
import torch
from torch import nn

from app.deliver.plan import Wanted
from app.errors import SelectionError
from app.formats.index import index
from app.select.query import StateDictQuery
from tests.deliver.planning import load, materialise, planned, save, served_file, served_state_dict

W = torch.randn(3, 2)
FROM_CPU = torch._utils._rebuild_device_tensor_from_cpu_tensor
FROM_NUMPY = torch._utils._rebuild_device_tensor_from_numpy


class Reduced:
    """Is pickled as a call, as a tensor on a machine with such a device is."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def on_tpu(tensor: torch.Tensor, device: str = "xla:1") -> Any:
    return Reduced(FROM_CPU, (tensor, tensor.dtype, device, False))


def parameter_on_tpu(tensor: torch.Tensor) -> Any:
    return Reduced(torch._utils._rebuild_parameter, (on_tpu(tensor), True, {}))


@pytest.mark.parametrize("make", [on_tpu, parameter_on_tpu, lambda w: on_tpu(w.t().clone().t())])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_they_are_put_where_the_request_says(make: Any, options: dict[str, Any]) -> None:
    data = save({"model": {"w": make(W), "b": torch.ones(2)}, "epoch": 1}, **options)
    assert torch.equal(load(served_state_dict(data, device="cpu"))["w"], W)
    assert torch.equal(load(served_file(data, "cpu"))["model"]["w"], W)
    assert torch.equal(load(served_state_dict(data, device="cuda:0"), map_location="cpu")["w"], W)
    meta = load(served_state_dict(data, device="meta"))["w"]
    assert (meta.is_meta, meta.shape) == (True, W.shape)


def test_they_stay_where_they_were_where_it_says_nothing() -> None:
    data = save({"model": {"w": on_tpu(W)}})
    for served in (served_state_dict(data), served_file(data)):
        with pytest.raises(Exception, match="XLA"):
            load(served)


def test_they_are_listed_and_cast_and_written_as_safetensors() -> None:
    data = save({"model": {"w": on_tpu(W), "p": parameter_on_tpu(W), "n": on_tpu(torch.ones(2, dtype=torch.int64))}})
    found = index(memoryview(data)).manifest
    assert [(tensor.key, tensor.shape, tensor.dtype.name) for tensor in found.tensors] == [
        ("w", (3, 2), "float32"), ("p", (3, 2), "float32"), ("n", (2,), "int64"),
    ]  # fmt: skip
    made = planned(data, Wanted(query=StateDictQuery(format="safetensors")))
    assert len(made.storages) == 3
    half = load(served_state_dict(data, device="cpu", dtype="float16"))
    assert [tensor.dtype for tensor in half.values()] == [torch.float16, torch.float16, torch.int64]
    assert torch.equal(half["w"], W.half())


def test_a_number_on_one_is_a_metric() -> None:
    facts = index(memoryview(save({"model": {"w": W}, "loss": on_tpu(torch.tensor(0.5))}))).facts
    assert facts.loss == 0.5


def test_a_whole_model_on_one_has_its_keys() -> None:
    net = nn.Linear(2, 3)
    net._parameters["weight"] = parameter_on_tpu(W)
    served = load(served_state_dict(save({"model": net}), device="cpu"))
    assert torch.equal(served["weight"], W)


@pytest.mark.parametrize("function", [FROM_NUMPY, torch._utils._rebuild_xla_tensor])
def test_what_older_torch_wrote_of_one_is_in_the_file_and_named_where_it_cannot_be_served(function: Any) -> None:
    old = Reduced(function, (W.numpy(), W.dtype, "xla:1", False))
    data = save({"w": old})
    assert torch.equal(load(served_file(data, "cpu"), map_location="cpu", weights_only=False)["w"], W)
    with pytest.raises(SelectionError) as refused:
        served_state_dict(data)
    assert refused.value.code == "component-empty"
    made = planned(save({"w": old, "b": W}), Wanted(query=StateDictQuery(device="cpu")))
    assert made.left_out == ("w",)
    assert list(load(materialise(made, save({"w": old, "b": W})))) == ["b"]
