"""Scenario 4: a general checkpoint. All its values come back, and a resumed training goes on as if never stopped."""

import argparse
import collections
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

from stateroom import Model as ClientModel
from stateroom import UnsafeGlobals
from tests.functional.classifier import Training, adam, sgd
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import Save, loaded, locations, same

OPTIMIZERS = {"sgd-with-momentum": sgd, "adam": adam}
Resume = Callable[[dict[str, Any]], dict[str, Any]]


def uninterrupted(make_optimizer: Callable[[nn.Module], optim.Optimizer], epochs: int) -> Training:
    training = Training.start(make_optimizer, seed=7)
    for _ in range(epochs):
        training.epoch()
    return training


def interrupted(make_optimizer: Callable[[nn.Module], optim.Optimizer], epochs: int, through: Resume) -> Training:
    """Stopped after each epoch; each starts from what ``through`` made of the checkpoint, in a training made anew."""
    training = Training.start(make_optimizer, seed=7)
    for epoch in range(epochs):
        checkpoint = through(training.general_checkpoint(epoch, training.epoch()))
        training = Training.start(make_optimizer, seed=1000 + epoch)
        training.resume(checkpoint)
    return training


def assert_same_trajectory(one: Training, other: Training) -> None:
    assert same(one.net.state_dict(), other.net.state_dict())
    assert same(one.embedding.state_dict(), other.embedding.state_dict())
    assert same(one.optimizer.state_dict(), other.optimizer.state_dict())
    assert same(one.scheduler.state_dict(), other.scheduler.state_dict())


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_scenario_04_a_run_resumed_over_http_has_the_weights_of_one_that_never_stopped(
    model: HttpModel, save: Save, make_optimizer: Callable[[nn.Module], optim.Optimizer]
) -> None:
    def through(checkpoint: dict[str, Any]) -> dict[str, Any]:
        shown = model.upload(save(checkpoint))
        assert (shown["epoch"], shown["loss"]) == (checkpoint["epoch"], checkpoint["loss"])
        return loaded(model.get("latest/file", weights_only="false"), weights_only=False)

    assert_same_trajectory(interrupted(make_optimizer, 3, through), uninterrupted(make_optimizer, 3))


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.filterwarnings(
    "ignore::stateroom.StateroomWarning"
)  # numpy's RNG state needs weights_only=False: it says so
def test_scenario_04_a_run_resumed_through_the_client_has_the_weights_of_one_that_never_stopped(
    client_model: ClientModel, make_optimizer: Callable[[nn.Module], optim.Optimizer]
) -> None:
    def through(checkpoint: dict[str, Any]) -> dict[str, Any]:
        client_model.save(checkpoint, epoch=checkpoint["epoch"], loss=checkpoint["loss"])
        return client_model.load("latest", map_location="cpu", weights_only=False)

    assert_same_trajectory(interrupted(make_optimizer, 3, through), uninterrupted(make_optimizer, 3))


@pytest.mark.filterwarnings("ignore::stateroom.StateroomWarning")
def test_scenario_04_model_and_optimizer_are_loaded_in_place(client_model: ClientModel) -> None:
    training = uninterrupted(adam, 2)
    client_model.save(training.general_checkpoint(1, 0.5))
    again = Training.start(adam, seed=5)
    client_model.load_into({"model_state_dict": again.net, "optimizer_state_dict": again.optimizer}, "latest")
    assert same(again.net.state_dict(), training.net.state_dict())
    assert same(again.optimizer.state_dict(), training.optimizer.state_dict())


def everything() -> dict[str, Any]:
    """Whatever people put beside their weights."""
    shared = torch.arange(12.0).reshape(3, 4)
    training = uninterrupted(adam, 1)
    return {
        **training.general_checkpoint(4, 0.25),
        "plateau": optim.lr_scheduler.ReduceLROnPlateau(training.optimizer).state_dict(),
        "best_acc": np.float64(0.1) + 0.2,
        "seen": np.int64(2**40),
        "confusion": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "history": [0.5, 0.25, float("inf"), -0.0],
        "classes": collections.OrderedDict(cat=0, dog=1),
        "counts": collections.defaultdict(list, a=[1]),
        "config": {"device": "cpu", "lr": 1e-3, "betas": (0.9, 0.999), "name": "été", "amp": None, "big": 2**80},
        "args": argparse.Namespace(lr=0.1, out=PurePosixPath("runs/1")),
        "frozen": frozenset({"conv1", "conv2"}),
        "raw": b"\x00\xff",
        "transposed": shared.t(),
        "row": shared[1],
        "every": [torch.tensor(True), torch.tensor([1 + 2j]), torch.zeros(0, 3), torch.tensor(7, dtype=torch.uint8)],
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "parameter": nn.Parameter(torch.ones(2)),
        "shape": torch.Size([1, 2]),
        "dtype": torch.float16,
        "where": torch.device("cpu"),
    }


def test_scenario_04_everything_in_a_general_checkpoint_comes_back(model: HttpModel, save: Save) -> None:
    checkpoint = everything()
    model.upload(save(checkpoint))
    served = loaded(model.get("latest/file", weights_only="false"), weights_only=False)
    assert same(served, checkpoint)
    assert served["row"].untyped_storage().data_ptr() == served["transposed"].untyped_storage().data_ptr()


def test_scenario_04_remapping_a_general_checkpoint_changes_where_its_storages_are_and_nothing_else(
    model: HttpModel,
    save: Save,
) -> None:
    checkpoint = everything()
    model.upload(save(checkpoint))
    data = model.get("latest/file", weights_only="false", device="cuda:1")
    assert locations(data, weights_only=False) == ["cuda:1"]
    served = loaded(data, weights_only=False, map_location="cpu")
    assert served["config"]["device"] == "cpu"
    assert same(served, checkpoint)


def test_scenario_04_its_names_beyond_weights_only_are_listed_and_gate_the_file(model: HttpModel, save: Save) -> None:
    shown = model.upload(save(everything()))
    assert "argparse.Namespace" in shown["unsafe_globals"]
    refusal = model.refusal("latest/file")
    assert refusal["code"] == "unsafe-globals"
    assert "weights_only=false" in refusal["detail"]


def test_scenario_04_its_state_dicts_load_safely_all_the_same(model: HttpModel, save: Save) -> None:
    checkpoint = everything()
    model.upload(save(checkpoint))
    for component in ("model_state_dict", "optimizer_state_dict"):
        assert same(loaded(model.get("latest/state_dict", component=component)), checkpoint[component])


def test_scenario_04_a_checkpoint_of_plain_values_needs_no_opening_of_gates(model: HttpModel, save: Save) -> None:
    training = uninterrupted(sgd, 1)
    checkpoint = training.general_checkpoint(0, 0.5)
    del checkpoint["rng"]["numpy"]
    shown = model.upload(save(checkpoint))
    assert shown["unsafe_globals"] == []
    assert same(loaded(model.get("latest/file")), checkpoint)


def test_scenario_04_the_client_says_what_weights_only_will_not_load(client_model: ClientModel) -> None:
    with pytest.warns(UserWarning, match="weights_only"):
        client_model.save({"net": {"w": torch.zeros(2)}, "args": argparse.Namespace(lr=0.1)})
    with pytest.raises(UnsafeGlobals):
        client_model.load("latest")


def test_scenario_04_the_best_of_several_epochs_is_found(model: HttpModel, save: Save) -> None:
    for epoch, loss in enumerate([0.9, 0.3, float("nan"), 0.5]):
        model.upload(save({"epoch": epoch, "loss": loss, "model_state_dict": {"w": torch.tensor([float(epoch)])}}))
    assert model.json("best")["epoch"] == 1
    assert model.json("latest")["epoch"] == 3
    assert loaded(model.get("best/state_dict"))["w"].item() == 1.0
    shown = model.json("epoch:2")
    assert (shown["loss"], shown["nonfinite"]) == (None, ["loss"])
    assert [item["epoch"] for item in model.json(order="loss")["items"]][:3] == [1, 3, 0]
