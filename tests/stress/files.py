"""Checkpoints that share storages with one another, as epochs do, for sweeps to separate."""

import random
from collections.abc import Sequence

import torch

from tests.functional.torch_files import saved

KIB = 256
"""Floats in a KiB."""


class Files:
    """Makes files from a pool of storages that many share, and from others that are only their own."""

    def __init__(self, seed: int) -> None:
        sizes = [6, 20, 60, 150, 300, 600]
        self._shared: Sequence[torch.Tensor] = [_tensor(seed * 1000 + i, sizes[i % 6] * KIB) for i in range(24)]

    def make(self, rng: random.Random, *, large: float = 0.0, many: float = 0.0) -> bytes:
        """The share ``large`` of them take several windows to send, ``many`` have storages for a commit in batches."""
        tensors = {f"shared.{i}": tensor for i, tensor in enumerate(rng.sample(self._shared, rng.randint(1, 3)))}
        draw, seed = rng.random(), rng.getrandbits(60)
        if draw < large:
            tensors["own"] = _tensor(seed, rng.randint(18, 36) * 1024 * KIB)
        elif draw < large + many:
            own = _tensor(seed, 1100 * 1100)
            tensors |= {f"own.{i}": own[i * 1100 : (i + 1) * 1100].clone() for i in range(1100)}
        else:
            tensors["own"] = _tensor(seed, rng.choice([2, 30, 200, 800, 1500]) * KIB)
        return saved({"epoch": 1, "model_state_dict": tensors})


def _tensor(seed: int, size: int) -> torch.Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))
