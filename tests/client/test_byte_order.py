"""The client reads a checkpoint of a big-endian machine as torch.load does."""

import io
from typing import Any

import httpx
import pytest
import torch
from torch import nn

from stateroom import Client, Model
from tests.formats.torch_files import big_endian
from tests.functional.torch_files import loaded, same, saved
from tests.support.server import Server

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int32, torch.int16, torch.uint8, torch.bool]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(70, 40), nn.BatchNorm1d(40), nn.Linear(40, 3, dtype=torch.complex64))


def everything() -> dict[str, Any]:
    state = {str(dtype): torch.arange(3000).to(dtype) for dtype in DTYPES}
    wide = torch.arange(3000) / 7
    return {"model": net().state_dict(), "of each": {**state, "wide": wide, "view": wide[10:20]}, "epoch": 3}


@pytest.fixture
def model(server: Server, model_name: str) -> Model:
    """A model whose checkpoint a machine of the other byte order wrote."""
    model = Client(server.base_url).model(model_name)
    model.upload(io.BytesIO(big_endian(saved(everything()))))
    return model


def test_every_index_names_the_byte_order(model: Model, http: httpx.Client) -> None:
    for file in ("original", "file", "state_dict"):
        query = {"component": "model"} if file == "state_dict" else {}
        layout = http.get(f"/v1/models/{model.name}/checkpoints/1/{file}/index", params=query).json()
        assert layout["byteorder"] == "big", file


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("map_location", [None, "cpu", lambda storage, _: storage], ids=["none", "cpu", "function"])
def test_all_of_it_has_its_numbers(model: Model, map_location: Any, weights_only: bool) -> None:
    assert same(model.load("latest", map_location, weights_only=weights_only), everything())


def test_a_component_and_a_part_of_one_have_their_numbers(model: Model) -> None:
    assert same(dict(model.state_dict("latest", component="model")), dict(net().state_dict()))
    part = model.state_dict("latest", component="of each", include=["view"])
    assert torch.equal(part["view"], everything()["of each"]["view"])
    cast = model.state_dict("latest", component="model", include=["0.*"], dtype=torch.float16)
    assert torch.equal(cast["0.weight"], net()[0].weight.half())


def test_tensors_that_come_one_by_one_have_their_numbers(model: Model) -> None:
    state = everything()["of each"]
    for key, tensor in model.iter_tensors("latest", component="of each"):
        assert torch.equal(tensor, state[key]), key


@pytest.mark.parametrize("how", ["load_into", "warmstart"])
def test_a_module_gets_its_numbers(model: Model, how: str) -> None:
    target = net()
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    if how == "load_into":
        model.load_into({"model": target}, "latest")
    else:
        model.warmstart(target, "latest", component="model")
    assert same(dict(target.state_dict()), dict(net().state_dict()))


def test_a_downloaded_file_has_its_numbers(model: Model, tmp_path: Any) -> None:
    model.download("latest", tmp_path / "a.pt", "cpu")
    assert same(loaded((tmp_path / "a.pt").read_bytes()), everything())
