"""Scenario 1: look into a state_dict, every key with its size, and into an optimizer's state and param_groups."""

import json

import torch
from torch import nn

from tests.functional.classifier import Training, adam, make_net, sgd
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import Save


def test_scenario_01_every_key_of_a_state_dict_with_its_size(model: HttpModel, save: Save) -> None:
    net = make_net()
    model.upload(save(net.state_dict()))
    shown = model.json("latest/tensors", component="")
    assert [
        (item["key"], item["shape"], item["dtype"], item["stride"], item["bytes"], item["device"])
        for item in shown["items"]
    ] == [
        (key, list(tensor.shape), "float32", list(tensor.stride()), tensor.nbytes, "cpu")
        for key, tensor in net.state_dict().items()
    ]
    assert shown["next"] is None


def test_scenario_01_an_optimizers_state_and_param_groups(model: HttpModel, save: Save) -> None:
    for optimizer_of in (sgd, adam):
        training = Training.start(optimizer_of, seed=3)
        training.epoch()
        state_dict = training.optimizer.state_dict()
        model.upload(save({"model": training.net.state_dict(), "optimizer": state_dict}))
        shown = model.json("latest/tensors", component="optimizer")
        assert {item["key"]: item["shape"] for item in shown["items"]} == {
            f"state.{index}.{name}": list(value.shape)
            for index, state in state_dict["state"].items()
            for name, value in state.items()
            if isinstance(value, torch.Tensor)
        }
        (component,) = shown["components"]
        assert component["kind"] == "optimizer"
        assert component["param_groups"] == json.loads(json.dumps(state_dict["param_groups"]))


def test_scenario_01_the_checkpoint_names_its_components(model: HttpModel, save: Save) -> None:
    training = Training.start(sgd, seed=3)
    training.epoch()
    net, optimizer = training.net.state_dict(), training.optimizer.state_dict()
    model.upload(save({"epoch": 0, "net": net, "opt": optimizer}))
    components = {component["name"]: component for component in model.json("latest")["components"]}
    assert {name: (c["kind"], c["keys"]) for name, c in components.items()} == {
        "net": ("state_dict", len(net)),
        "opt": ("optimizer", len(optimizer["state"])),
    }
    assert components["net"]["bytes"] == sum(tensor.nbytes for tensor in net.values())


def test_scenario_01_a_long_list_comes_in_pages(model: HttpModel, save: Save) -> None:
    net = make_net()
    model.upload(save(net.state_dict()))
    keys, cursor = [], None
    while True:
        page = model.json("latest/tensors", limit=3, **({"cursor": cursor} if cursor else {}))
        keys += [item["key"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert keys == list(net.state_dict())


def test_scenario_01_tied_weights_are_shown_as_tied(model: HttpModel, save: Save) -> None:
    net = nn.ModuleDict({"embed": nn.Embedding(50, 40), "head": nn.Linear(40, 50, bias=False)})
    net["head"].weight = net["embed"].weight
    model.upload(save(net.state_dict()))
    items = {item["key"]: item for item in model.json("latest/tensors")["items"]}
    assert items["embed.weight"]["shared_with"] == ["head.weight"]
    assert items["head.weight"]["shared_with"] == ["embed.weight"]
    assert items["embed.weight"]["digest"] == items["head.weight"]["digest"]
