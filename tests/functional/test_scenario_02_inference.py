"""Scenario 2: save a state_dict for inference, load it, ``eval()``, predict the same."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import safetensors.torch
import torch

from stateroom import Model as ClientModel
from tests.functional.classifier import Net, make_net, predictions
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import Save, loaded, same
from tests.support.server import Server

SENDERS = {
    "post": lambda http, url, data: http.post(url, content=data),
    "put": lambda http, url, data: http.put(url, content=data),
    "multipart": lambda http, url, data: http.post(url, files={"file": ("net.pth", data)}, data={"epoch": "3"}),
}


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_scenario_02_a_state_dict_comes_back_and_predicts_the_same(
    model: HttpModel, save: Save, send: Callable[[httpx.Client, str, bytes], httpx.Response]
) -> None:
    net = make_net()
    assert send(model.http, model.url(), save(net.state_dict())).status_code == 201
    served = loaded(model.get("latest/state_dict"))
    again = make_net(seed=99)
    again.load_state_dict(served, strict=True)
    assert torch.equal(predictions(again), predictions(net))
    assert same(served, net.state_dict())


def test_scenario_02_a_multipart_uploads_fields_are_kept(model: HttpModel, save: Save) -> None:
    data = save(make_net().state_dict())
    fields = {"epoch": "3", "loss": "0.5", "run": "a", "metric.acc": "0.9", "tag.author": "me"}
    answer = model.http.post(model.url(), files={"file": ("net.pth", data)}, data=fields)
    assert answer.status_code == 201
    shown = model.json("latest")
    assert (shown["epoch"], shown["loss"], shown["run"]) == (3, 0.5, "a")
    assert (shown["metrics"], shown["tags"]) == ({"acc": 0.9}, {"author": "me"})


def test_scenario_02_what_was_uploaded_is_served_byte_for_byte(model: HttpModel, save: Save) -> None:
    data = save(make_net().state_dict())
    shown = model.upload(data)
    assert model.get("latest/original") == data
    assert shown["bytes"] == len(data)


def test_scenario_02_torch_hub_loads_from_the_ready_made_address(
    model: HttpModel, save: Save, server: Server, tmp_path: Path
) -> None:
    net = make_net()
    shown = model.upload(save(net.state_dict()))
    url = server.base_url + shown["urls"]["state_dict"]
    served = torch.hub.load_state_dict_from_url(url, model_dir=str(tmp_path), weights_only=True, progress=False)
    assert same(served, net.state_dict())
    assert next(tmp_path.iterdir()).name == shown["urls"]["state_dict"].rpartition("/")[2]


def test_scenario_02_the_client_saves_and_loads_into_a_net(client_model: ClientModel) -> None:
    net = make_net()
    checkpoint = client_model.save(net.state_dict(), epoch=1)
    again = make_net(seed=99)
    client_model.load_into(again, checkpoint)
    assert torch.equal(predictions(again), predictions(net))
    third = Net()
    third.load_state_dict(client_model.state_dict("latest"), strict=True)
    assert torch.equal(predictions(third), predictions(net))
    assert same(client_model.load(1), net.state_dict())


def test_scenario_02_the_client_uploads_a_file_and_downloads_it(client_model: ClientModel, tmp_path: Path) -> None:
    net = make_net()
    torch.save(net.state_dict(), tmp_path / "model.pt")
    client_model.upload(tmp_path / "model.pt", epoch=3)
    path = client_model.download("epoch:3", tmp_path / "out.pt", map_location="cpu")
    assert same(torch.load(path, weights_only=True), net.state_dict())


def test_scenario_02_a_safetensors_file_is_a_checkpoint_like_any_other(model: HttpModel) -> None:
    net = make_net()
    data = safetensors.torch.save(net.state_dict(), {"epoch": "4", "author": "me"})
    shown = model.upload(data)
    assert (shown["format"], shown["epoch"]) == ("safetensors", 4)
    assert model.json("latest/tensors")["metadata"] == {"epoch": "4", "author": "me"}
    for path in ("latest/state_dict", "latest/file"):
        again = make_net(seed=99)
        again.load_state_dict(loaded(model.get(path)), strict=True)
        assert torch.equal(predictions(again), predictions(net))
    assert model.get("latest/original") == data
