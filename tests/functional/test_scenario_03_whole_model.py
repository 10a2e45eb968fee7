"""Scenario 3: a whole model, pickled by reference to its class. The server has no such class, and needs none."""

import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stateroom import Model as ClientModel
from tests.functional.classifier import Net, NormedNet, Training, make_net, predictions, sgd
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import Save, loaded, same, saved

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # of a class that was made here


@pytest.fixture
def vanishing(monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """A class that can be imported while the test runs, from a module that no other process has."""

    class Vanishing(Net):
        pass

    Vanishing.__module__, Vanishing.__qualname__ = "their_project", "Vanishing"
    module = types.ModuleType("their_project")
    module.Vanishing = Vanishing  # type: ignore[attr-defined]  # that is the point
    monkeypatch.setitem(sys.modules, "their_project", module)
    return Vanishing


def test_scenario_03_its_state_dict_is_served_without_the_class(
    model: HttpModel, save: Save, vanishing: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net(kind=vanishing)
    shown = model.upload(save(net))
    assert [(c["name"], c["kind"], c["keys"]) for c in shown["components"]] == [("", "state_dict", 10)]
    monkeypatch.delitem(sys.modules, "their_project")
    served = loaded(model.get("latest/state_dict"))
    want = net.state_dict()
    assert list(served) == list(want)
    assert all(same(served[key], want[key]) for key in want)
    again = make_net(seed=99)
    again.load_state_dict(served, strict=True)
    assert torch.equal(predictions(again), predictions(net))


def test_scenario_03_its_keys_are_listed_with_their_sizes(model: HttpModel, save: Save) -> None:
    net = make_net(kind=NormedNet)
    model.upload(save(net))
    items = model.json("latest/tensors")["items"]
    want = net.state_dict()
    assert [(item["key"], item["shape"]) for item in items] == [(key, list(t.shape)) for key, t in want.items()]


def test_scenario_03_the_object_itself_only_comes_on_request(
    model: HttpModel, save: Save, vanishing: type[nn.Module]
) -> None:
    net = make_net(kind=vanishing)
    data = save(net)
    shown = model.upload(data)
    assert "their_project.Vanishing" in shown["unsafe_globals"]
    refusal = model.refusal("latest/file")
    assert (refusal["status"], refusal["code"]) == (409, "unsafe-globals")
    assert "their_project.Vanishing" in refusal["detail"]
    again = loaded(model.get("latest/file", weights_only="false"), weights_only=False)
    assert type(again) is vanishing
    assert torch.equal(predictions(again), predictions(net))
    assert model.get("latest/original") == data


def test_scenario_03_models_in_a_checkpoint_are_components(model: HttpModel, save: Save) -> None:
    training = Training.start(sgd, seed=0)
    training.epoch()
    state = {"epoch": 1, "model": training.net, "optimizer": training.optimizer.state_dict(), "critic": NormedNet()}
    shown = model.upload(save(state))
    assert shown["epoch"] == 1
    assert [(c["name"], c["kind"]) for c in shown["components"]] == [
        ("model", "state_dict"),
        ("optimizer", "optimizer"),
        ("critic", "state_dict"),
    ]
    again = make_net(seed=99)
    again.load_state_dict(loaded(model.get("latest/state_dict")), strict=True)
    assert torch.equal(predictions(again), predictions(training.net))
    critic = NormedNet()
    critic.load_state_dict(loaded(model.get("latest/state_dict", component="critic")), strict=True)
    assert same(dict(critic.state_dict()), dict(state["critic"].state_dict()))


def test_scenario_03_a_wrapped_models_keys_lose_their_prefix(model: HttpModel, save: Save) -> None:
    net = make_net(kind=NormedNet)
    model.upload(save(nn.DataParallel(net)))
    assert list(loaded(model.get("latest/state_dict"))) == [f"module.{key}" for key in net.state_dict()]
    again = make_net(seed=99, kind=NormedNet)
    again.load_state_dict(loaded(model.get("latest/state_dict", strip_prefix="module.")), strict=True)
    assert torch.equal(predictions(again), predictions(net))


def test_scenario_03_it_is_remapped_filtered_and_matched_like_any_state_dict(model: HttpModel, save: Save) -> None:
    net = make_net()
    model.upload(save(net, device="cuda:3"))
    with pytest.raises(RuntimeError):
        loaded(model.get("latest/state_dict"))
    served = loaded(model.get("latest/state_dict", device="cpu", include="conv*"))
    assert list(served) == ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    target = {key: {"shape": list(t.shape), "dtype": "float32"} for key, t in make_net().state_dict().items()}
    answer = model.http.post(model.url("latest/warmstart"), json={"target": target, "device": "cpu"})
    report: dict[str, Any] = answer.json()
    assert report["matched_keys"] == list(net.state_dict())
    assert len(loaded(model.http.get(report["download"]).content)) == 10


def test_scenario_03_the_client_takes_the_state_dict_of_a_model(client_model: ClientModel, tmp_path: Path) -> None:
    net = make_net()
    (tmp_path / "model.pt").write_bytes(saved(net))
    checkpoint = client_model.upload(tmp_path / "model.pt")
    again = make_net(seed=99)
    client_model.load_into(again, checkpoint)
    assert torch.equal(predictions(again), predictions(net))


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated; files of it exist
def test_scenario_03_a_torchscript_program_gives_its_state_dict_and_itself_as_it_was(model: HttpModel) -> None:
    net = make_net()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(net), buffer)
    shown = model.upload(buffer.getvalue())
    assert shown["format"] == "torchscript"
    again = make_net(seed=99)
    again.load_state_dict(loaded(model.get("latest/state_dict")), strict=True)
    assert torch.equal(predictions(again), predictions(net))
    assert model.get("latest/original") == buffer.getvalue()
    refusal = model.refusal("latest/file", weights_only="false")
    assert (refusal["status"], refusal["code"]) == (409, "torchscript")
