"""Scenario 6: warm start. Fewer keys, more keys, keys under other names: reported before a byte is sent, and only
matching tensors are sent.
"""

import re
from typing import Any

import pytest
import torch
from torch import nn

from stateroom import Model as ClientModel
from tests.functional.classifier import Net, make_net
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import Save, loaded


class Deeper(nn.Module):
    """Shares the classifier's convolutions under other names, has another head, and more layers."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"conv1": nn.Conv2d(3, 6, 5), "conv2": nn.Conv2d(6, 16, 5)})
        self.norm = nn.BatchNorm2d(16)
        self.fc3 = nn.Linear(84, 3)


def target_of(net: nn.Module) -> dict[str, Any]:
    return {
        key: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for key, tensor in net.state_dict().items()
    }


def warmstart(model: HttpModel, net: nn.Module, **query: Any) -> dict[str, Any]:
    answer = model.http.post(model.url("latest/warmstart"), json={"target": target_of(net), **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_torch_agrees(report: dict[str, Any], net: nn.Module, served: dict[str, torch.Tensor]) -> None:
    """``load_state_dict(strict=False)`` of all that was selected does what the report said."""
    try:
        answer = net.load_state_dict(served, strict=False)
    except RuntimeError as error:
        mismatched = re.findall(r"size mismatch for (\S+):", str(error))
    else:
        mismatched = []
        assert report["missing_keys"] == answer.missing_keys
        assert report["unexpected_keys"] == answer.unexpected_keys
    assert [mismatch["key"] for mismatch in report["mismatched_keys"]] == mismatched


def test_scenario_06_fewer_keys_than_the_target_has(model: HttpModel, save: Save) -> None:
    net = make_net()
    model.upload(save({"epoch": 1, "model_state_dict": net.state_dict()}))
    target = make_net(seed=9)
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    report = warmstart(model, target, include=["conv*"])
    convs = [key for key in before if key.startswith("conv")]
    assert report["matched_keys"] == convs
    assert report["missing_keys"] == [key for key in before if key not in convs]
    assert (report["unexpected_keys"], report["mismatched_keys"], report["cast_keys"]) == ([], [], [])
    served = loaded(model.http.get(report["download"]).content)
    assert_torch_agrees(report, target, served)
    for key, tensor in target.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[key] if key in convs else before[key])


def test_scenario_06_more_keys_than_the_target_has(model: HttpModel, save: Save) -> None:
    net = make_net()
    model.upload(save({"model": net.state_dict(), "epoch": 1}))
    target = nn.Sequential()
    target.add_module("fc1", nn.Linear(400, 120))
    report = warmstart(model, target)
    assert report["matched_keys"] == ["fc1.weight", "fc1.bias"]
    assert report["unexpected_keys"] == [key for key in net.state_dict() if not key.startswith("fc1.")]
    assert_torch_agrees(report, target, net.state_dict())
    assert list(loaded(model.http.get(report["download"]).content)) == ["fc1.weight", "fc1.bias"]


def test_scenario_06_keys_under_other_names(model: HttpModel, save: Save) -> None:
    net = make_net()
    model.upload(save(net.state_dict()))
    target = Deeper()
    rename = [["re:(conv\\d)\\.(.*)", "backbone.\\1.\\2"]]
    report = warmstart(model, target, rename=rename)
    assert report["matched_keys"] == [
        *("backbone.conv1.weight", "backbone.conv1.bias", "backbone.conv2.weight", "backbone.conv2.bias")
    ]
    assert report["mismatched_keys"] == [
        {"key": "fc3.weight", "have": [10, 84], "want": [3, 84]},
        {"key": "fc3.bias", "have": [10], "want": [3]},
    ]
    assert set(report["missing_keys"]) == {key for key in target.state_dict() if key.startswith("norm.")}
    all_renamed = loaded(model.get("latest/state_dict", rename="=>".join(rename[0])))
    assert_torch_agrees(report, target, all_renamed)
    served = loaded(model.http.get(report["download"]).content)
    assert list(served) == report["matched_keys"]
    assert torch.equal(served["backbone.conv2.weight"], net.state_dict()["conv2.weight"])


def test_scenario_06_another_dtype_still_matches_and_the_targets_wins(model: HttpModel, save: Save) -> None:
    net = make_net()
    model.upload(save(net.state_dict()))
    target = make_net(seed=9).half()
    report = warmstart(model, target)
    assert report["cast_keys"] == report["matched_keys"] == list(net.state_dict())
    target.load_state_dict(loaded(model.http.get(report["download"]).content), strict=True)
    assert torch.equal(target.fc1.weight, net.fc1.weight.half())


def test_scenario_06_only_matched_bytes_travel(model: HttpModel, save: Save) -> None:
    big = {f"block{i}.weight": torch.full((256, 1024), float(i)) for i in range(16)}
    model.upload(save(big))
    target = nn.ModuleDict({"block7": nn.Linear(1024, 256, bias=False), "head": nn.Linear(2, 2)})
    report = warmstart(model, target)
    assert report["bytes"] == 1024 * 1024
    head = model.http.head(report["download"])
    assert int(head.headers["Content-Length"]) <= report["bytes"] * 1.02 + 64 * 1024
    served = loaded(model.http.get(report["download"]).content)
    assert served["block7.weight"].untyped_storage().nbytes() == 1024 * 1024
    assert torch.equal(served["block7.weight"], big["block7.weight"])


def test_scenario_06_a_small_view_does_not_drag_its_storage_along(model: HttpModel, save: Save) -> None:
    rows = torch.arange(2**20, dtype=torch.float32).reshape(1024, 1024)
    model.upload(save({"all": rows, "third": rows[3]}))
    data = model.get("latest/state_dict", include="third")
    assert len(data) < 4096 + 64 * 1024
    assert torch.equal(loaded(data)["third"], rows[3])


def test_scenario_06_the_report_comes_before_any_byte_and_its_download_stays(model: HttpModel, save: Save) -> None:
    model.upload(save(make_net().state_dict()))
    report = warmstart(model, make_net(), include=["fc3.*"])
    model.upload(save(make_net(seed=1).state_dict()))
    served = loaded(model.http.get(report["download"]).content)
    assert torch.equal(served["fc3.weight"], make_net().fc3.weight)


def test_scenario_06_an_include_that_matches_nothing_names_what_is_close(model: HttpModel, save: Save) -> None:
    model.upload(save(make_net().state_dict()))
    target = {"target": target_of(make_net()), "include": ["Conv1*"]}
    answer = model.http.post(model.url("latest/warmstart"), json=target)
    assert (answer.status_code, answer.json()["code"]) == (422, "no-keys-matched")
    assert answer.json()["near"][0] == "conv1.weight"


def test_scenario_06_the_client_loads_what_matches_into_the_nets_own_memory(client_model: ClientModel) -> None:
    net = make_net()
    client_model.save({"epoch": 3, "model_state_dict": net.state_dict()})
    target = make_net(seed=9)
    memory = {key: tensor.data_ptr() for key, tensor in target.state_dict().items()}
    report = client_model.warmstart(target, "latest", include=["conv*"])
    assert list(report.matched_keys) == ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    assert len(report.missing_keys) == 6
    assert {key: tensor.data_ptr() for key, tensor in target.state_dict().items()} == memory
    assert torch.equal(target.conv1.weight, net.conv1.weight)
    assert torch.equal(target.fc1.weight, make_net(seed=9).fc1.weight)


def test_scenario_06_the_client_renames_on_the_way(client_model: ClientModel) -> None:
    net = make_net()
    client_model.save(net.state_dict())
    target = Deeper()
    report = client_model.warmstart(target, "latest", rename={"conv1.": "backbone.conv1.", "conv2.": "backbone.conv2."})
    assert len(report.matched_keys) == 4
    assert torch.equal(target.backbone["conv2"].weight, net.conv2.weight)
    assert set(report.missing_keys) == {key for key in target.state_dict() if key.startswith("norm.")}


@pytest.mark.parametrize("wider", [True, False])
def test_scenario_06_a_layer_of_another_size_is_left_as_it_was(client_model: ClientModel, wider: bool) -> None:
    sizes = (20, 10) if wider else (10, 20)
    client_model.save(Net(classes=sizes[0]).state_dict())
    target = Net(classes=sizes[1])
    before = target.fc3.weight.clone()
    report = client_model.warmstart(target, "latest")
    assert [mismatch.key for mismatch in report.mismatched_keys] == ["fc3.weight", "fc3.bias"]
    assert torch.equal(target.fc3.weight, before)
