"""Scenario 5: several models and optimizers in one file, each a component that is listed and fetched alone."""

import pytest
import torch

from stateroom import ComponentAmbiguous
from stateroom import Model as ClientModel
from tests.functional.classifier import NormedNet, Training, adam, make_net, sgd
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import Save, loaded, same

NAMES = ["modelA_state_dict", "modelB_state_dict", "optimizerA_state_dict", "optimizerB_state_dict"]


@pytest.fixture(scope="module")
def gan() -> dict[str, object]:
    a, b = Training.start(sgd, seed=1), Training.start(adam, seed=2)
    a.epoch()
    b.epoch()
    parts = [a.net.state_dict(), b.net.state_dict(), a.optimizer.state_dict(), b.optimizer.state_dict()]
    return dict(zip(NAMES, parts, strict=True))


def test_scenario_05_each_is_listed_with_its_kind_and_address(
    model: HttpModel, save: Save, gan: dict[str, object]
) -> None:
    components = model.upload(save(gan))["components"]
    assert [(c["name"], c["kind"]) for c in components] == [
        *((name, "state_dict") for name in NAMES[:2]),
        *((name, "optimizer") for name in NAMES[2:]),
    ]
    for component in components:
        answer = model.http.get(component["url"])
        assert same(loaded(answer.content), gan[component["name"]])


@pytest.mark.parametrize("name", NAMES)
def test_scenario_05_each_is_fetched_alone(model: HttpModel, save: Save, gan: dict[str, object], name: str) -> None:
    model.upload(save(gan))
    data = model.get("latest/state_dict", component=name)
    assert same(loaded(data), gan[name])
    listed = next(c for c in model.json("latest")["components"] if c["name"] == name)
    assert len(data) < listed["bytes"] * 1.02 + 64 * 1024


def test_scenario_05_without_a_name_the_answer_is_which_there_are(
    model: HttpModel, save: Save, gan: dict[str, object]
) -> None:
    model.upload(save(gan))
    refusal = model.refusal("latest/state_dict")
    assert (refusal["status"], refusal["code"]) == (422, "component-ambiguous")
    assert all(name in refusal["detail"] for name in NAMES)


def test_scenario_05_a_name_that_is_not_there_comes_with_one_that_is(
    model: HttpModel, save: Save, gan: dict[str, object]
) -> None:
    model.upload(save(gan))
    refusal = model.refusal("latest/state_dict", component="model_A_state_dict")
    assert (refusal["status"], refusal["code"]) == (422, "unknown-component")
    assert refusal["near"][0] == "modelA_state_dict"


def test_scenario_05_an_ensemble_in_a_list_is_addressed_by_number(model: HttpModel, save: Save) -> None:
    nets = [make_net(seed, NormedNet) for seed in range(3)]
    model.upload(save({"ensemble": [net.state_dict() for net in nets]}))
    again = make_net(99, NormedNet)
    again.load_state_dict(loaded(model.get("latest/state_dict", component="ensemble.2")), strict=True)
    assert same(again.state_dict(), nets[2].state_dict())


def test_scenario_05_a_component_may_be_filtered_like_any_other(
    model: HttpModel, save: Save, gan: dict[str, object]
) -> None:
    model.upload(save(gan))
    served = loaded(model.get("latest/state_dict", component="modelB_state_dict", include="conv*"))
    assert list(served) == ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    buffers = loaded(model.get("latest/state_dict", component="optimizerB_state_dict", include="state.*.exp_avg"))
    kept = {
        name for state in buffers["state"].values() for name, value in state.items() if isinstance(value, torch.Tensor)
    }
    assert kept == {"exp_avg"}
    assert (
        model.refusal("latest/state_dict", component="optimizerB_state_dict", add_prefix="x.")["code"]
        == "not-a-state-dict"
    )


def test_scenario_05_the_client_names_components_too(client_model: ClientModel, gan: dict[str, object]) -> None:
    client_model.save(gan)
    assert same(client_model.state_dict("latest", component="modelA_state_dict"), gan["modelA_state_dict"])
    with pytest.raises(ComponentAmbiguous, match="modelB_state_dict"):
        client_model.state_dict("latest")
