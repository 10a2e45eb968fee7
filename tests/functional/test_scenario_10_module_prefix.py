"""Scenario 10: DataParallel and DDP put ``module.`` before every key; it can be stripped or added, also in the
metadata.
"""

import pytest
import torch
from torch import nn

from stateroom import Model as ClientModel
from tests.functional.classifier import NormedNet, make_net, predictions
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import Save, loaded, same


def wrapped(seed: int = 0) -> nn.DataParallel:
    return nn.DataParallel(make_net(seed, NormedNet))


def test_scenario_10_strip_prefix_gives_the_state_dict_of_the_net_inside(model: HttpModel, save: Save) -> None:
    parallel = wrapped()
    model.upload(save({"epoch": 1, "state_dict": parallel.state_dict()}))
    served = loaded(model.get("latest/state_dict", strip_prefix="module."))
    net = make_net(9, NormedNet)
    net.load_state_dict(served, strict=True)
    assert torch.equal(predictions(net), predictions(parallel.module))
    assert same(served, parallel.module.state_dict())


def test_scenario_10_add_prefix_gives_the_state_dict_of_the_wrapper(model: HttpModel, save: Save) -> None:
    net = make_net(0, NormedNet)
    model.upload(save(net.state_dict()))
    served = loaded(model.get("latest/state_dict", add_prefix="module."))
    parallel = wrapped(9)
    parallel.load_state_dict(served, strict=True)
    assert torch.equal(predictions(parallel.module), predictions(net))
    assert list(served) == list(parallel.state_dict())


@pytest.mark.parametrize("query", [{"strip_prefix": "module."}, {"strip_prefix": "module.", "add_prefix": "module."}])
def test_scenario_10_a_strict_load_stays_as_strict_as_the_metadata_says(
    model: HttpModel, save: Save, query: dict[str, str]
) -> None:
    """BatchNorm's version 2 demands ``num_batches_tracked``; with the version lost, torch would not miss it."""
    model.upload(save(wrapped().state_dict()))
    served = loaded(model.get("latest/state_dict", exclude="*num_batches_tracked", **query))
    target = wrapped(9) if "add_prefix" in query else make_net(9, NormedNet)
    with pytest.raises(RuntimeError, match=r"Missing key.*num_batches_tracked"):
        target.load_state_dict(served, strict=True)


def test_scenario_10_a_version_1_stays_forgiven(model: HttpModel, save: Save) -> None:
    state_dict = wrapped().state_dict()
    del state_dict["module.features.1.num_batches_tracked"]
    for entry in state_dict._metadata.values():
        entry["version"] = 1
    model.upload(save(state_dict))
    served = loaded(model.get("latest/state_dict", strip_prefix="module."))
    make_net(9, NormedNet).load_state_dict(served, strict=True)


def test_scenario_10_keys_without_the_prefix_pass(model: HttpModel, save: Save) -> None:
    model.upload(save({"module.a": torch.ones(2), "b": torch.zeros(2)}))
    assert list(loaded(model.get("latest/state_dict", strip_prefix="module."))) == ["a", "b"]


def test_scenario_10_two_keys_that_come_to_one_name_are_refused(model: HttpModel, save: Save) -> None:
    model.upload(save({"module.a": torch.ones(2), "a": torch.zeros(2)}))
    refusal = model.refusal("latest/state_dict", strip_prefix="module.")
    assert (refusal["status"], refusal["code"]) == (422, "duplicate-key")
    assert "module.a" in refusal["detail"]


def test_scenario_10_the_client_unwraps_both_ways(client_model: ClientModel) -> None:
    parallel = wrapped()
    client_model.save(parallel.state_dict(), epoch=1)
    net = make_net(9, NormedNet)
    net.load_state_dict(client_model.state_dict("latest", strip_prefix="module."), strict=True)
    assert same(net.state_dict(), parallel.module.state_dict())
    client_model.save(net.state_dict(), epoch=2)
    again = wrapped(7)
    again.load_state_dict(client_model.state_dict("latest", add_prefix="module."), strict=True)
    assert same(again.module.state_dict(), net.state_dict())


def test_scenario_10_the_client_loads_into_a_wrapped_net(client_model: ClientModel) -> None:
    net = make_net(0, NormedNet)
    client_model.save(net.state_dict())
    parallel = wrapped(9)
    client_model.load_into(parallel, "latest")
    assert same(parallel.module.state_dict(), net.state_dict())
