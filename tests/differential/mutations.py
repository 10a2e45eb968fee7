"""Honest files, and damaged versions of them."""

import io
import warnings
from collections.abc import Mapping
from functools import cache
from random import Random

import torch

from tests.deliver.planning import save
from tests.differential.damage import damaged


def _general() -> dict[str, object]:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "loss": 0.5,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }


def _views() -> dict[str, object]:
    base = torch.arange(60.0).reshape(6, 10)
    return {
        "base": base,
        "part": base[2:4],
        "turned": base.t(),
        "spread": torch.ones(1).expand(4, 4),
        "empty": base[:0],
    }


def _script() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out, its files are not
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


@cache
def honest() -> Mapping[str, bytes]:
    """Files to damage, the same each time."""
    torch.manual_seed(0)
    legacy = {"_use_new_zipfile_serialization": False}
    return {
        "zip": save(_general()),
        "legacy": save(_general(), **legacy),
        "views": save(_views()),
        "legacy views": save(_views(), **legacy),
        "flat": save(torch.nn.Linear(3, 2).state_dict()),
        "module": save(torch.nn.Linear(3, 2)),
        "protocol 4": save(_views(), pickle_protocol=4),
        "script": _script(),
    }


def mutated(seed: int) -> tuple[str, bytes]:
    """The ``seed``-th damaged file, and the name of what it was."""
    random = Random(seed)
    name, whole = random.choice(list(honest().items()))
    return name, damaged(whole, random)
