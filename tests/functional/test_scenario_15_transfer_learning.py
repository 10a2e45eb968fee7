"""Scenario 15: transfer learning. A backbone with another head, a longer positional embedding, more words, and keys of
a wrapped model: what fits is loaded, of what fits in part the corner, and nothing else is sent.
"""

import pytest
import torch
from torch import nn

from stateroom import Model as ClientModel
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import Save, loaded
from tests.support.server import Server
from tests.support.waiting import assert_soon

SLACK = 64 * 1024


class Encoder(nn.Module):
    def __init__(self, positions: int = 512, words: int = 4000, classes: int = 100, width: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(torch.randn(1, positions, width))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, classes)


def corner(saved: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    made = own.clone()
    common = tuple(slice(min(sizes)) for sizes in zip(saved.shape, own.shape, strict=True))
    made[common] = saved[common].to(own.dtype)
    return made


def body_sizes(server: Server, name: str) -> list[int]:
    """Return the sizes of the state_dicts of a model that were sent, of which there is at least one."""

    def sizes() -> list[int]:
        ours = [each for each in server.requests if name in each["path"] and each["route"].endswith("/state_dict")]
        return [each["bytes_out"] for each in ours]

    assert_soon(lambda: sizes() != [])
    return sizes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scenario_15_a_longer_encoder_with_another_head(
    client_model: ClientModel, server: Server, dtype: torch.dtype
) -> None:
    trained = Encoder().state_dict()
    client_model.save({"model_state_dict": {f"module.{key}": value for key, value in trained.items()}, "epoch": 3})
    net = Encoder(positions=800, words=300, classes=5).to(dtype)
    before = {key: value.clone() for key, value in net.state_dict().items()}

    report = client_model.warmstart(net, "latest", resize="slice", dtype="target", exclude="head.*")

    assert [each.key for each in report.resized_keys] == ["positions", "words.weight"]
    assert report.missing_keys == ("head.weight", "head.bias")
    assert report.prefix == "module."
    expected = {key: corner(trained[key], own) for key, own in before.items() if not key.startswith("head.")}
    for key, value in net.state_dict().items():
        assert torch.equal(value, expected.get(key, before[key])), key
    common = {key: trained[key] for key in expected} | {
        "positions": trained["positions"],
        "words.weight": trained["words.weight"][:300],
    }
    size = sum(value.numel() * (dtype.itemsize if value.is_floating_point() else 8) for value in common.values())
    assert sum(body_sizes(server, client_model.name)) <= 1.02 * size + SLACK


def test_scenario_15_the_same_with_http_alone(model: HttpModel, save: Save) -> None:
    trained = Encoder().state_dict()
    model.upload(save({"model_state_dict": trained}))
    target = {"words.weight": {"shape": [20, 64], "dtype": "float32"}, "head.bias": {"shape": [5], "dtype": "float32"}}
    answer = model.http.post(model.url("latest/warmstart"), json={"target": target, "resize": "slice"})
    served = loaded(model.http.get(answer.json()["download"]).content)
    assert torch.equal(served["words.weight"], trained["words.weight"][:20])
    assert torch.equal(served["head.bias"], trained["head.bias"][:5])
    rows = model.http.get(model.url("latest/tensors/positions?dim=1&shard=0/4&format=raw"))
    assert (
        torch.frombuffer(bytearray(rows.content), dtype=torch.float32)
        .view(1, 128, 64)
        .equal(trained["positions"][:, :128])
    )
