"""Objects to save that are large enough to be sent in parts."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

MIB = 1024 * 1024


def noise(mebibytes: float) -> torch.Tensor:
    """Floats that nobody has saved before."""
    return torch.frombuffer(bytearray(os.urandom(int(mebibytes * MIB))), dtype=torch.uint8).float() / 256


def training(mebibytes: float = 2) -> dict[str, Any]:
    net = nn.ModuleDict({"a": nn.Linear(300, 300), "b": nn.Linear(300, 300)})
    net["b"].weight = net["a"].weight
    optimizer = torch.optim.Adam(net.parameters())
    (net["a"](torch.ones(2, 300)).sum() + net["b"](torch.ones(2, 300)).sum()).backward()
    optimizer.step()
    return {
        "epoch": 3,
        "loss": torch.tensor(0.25),
        "rng": torch.get_rng_state(),
        "model_state_dict": {**net.state_dict(), "large": noise(mebibytes)},
        "optimizer_state_dict": optimizer.state_dict(),
    }


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
