"""The checkpoints that the benchmarks send."""

from io import BytesIO
from pathlib import Path

import torch

LAYERS = 49
STAGE = 7
UNITS = 3 * (LAYERS // STAGE) * (2**STAGE - 1)
"""A general checkpoint's size in units: layer ``stageS.convN`` has ``2**N``, three times (weight and Adam)."""

ONE_PERCENT = ("stage*.conv0.weight", "stage*.conv1.weight", "stage0.conv2.weight", "stage1.conv2.weight")
"""Keys of the model that hold 29 of the 2,667 units."""


def write_general(path: Path, size: int) -> None:
    """Write a general checkpoint of about ``size`` bytes: 147 tensors (49 float32 weights, two Adam averages each)."""
    unit = size // UNITS // 4
    counts = [unit << n for _ in range(LAYERS // STAGE) for n in range(STAGE)]
    names = [f"stage{stage}.conv{n}.weight" for stage in range(LAYERS // STAGE) for n in range(STAGE)]
    random = torch.Generator().manual_seed(0)

    def noise(count: int) -> torch.Tensor:
        return torch.empty(count).uniform_(generator=random)

    state = {i: {"step": 1000, "exp_avg": noise(count), "exp_avg_sq": noise(count)} for i, count in enumerate(counts)}
    torch.save(
        {
            "epoch": 3,
            "loss": 0.12,
            "model_state_dict": {name: noise(count) for name, count in zip(names, counts, strict=True)},
            "optimizer_state_dict": {
                "state": state,
                "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": list(range(LAYERS))}],
            },
        },
        path,
    )


def write_many(path: Path, tensors: int) -> None:
    """Write a state_dict of many small tensors (8 KiB each): much work to plan, few bytes."""
    values = torch.arange(tensors * 2048, dtype=torch.float32).reshape(tensors, 2048)
    torch.save({f"blocks.{i}.weight": values[i].clone() for i in range(tensors)}, path)


def write_transposed(path: Path, size: int) -> None:
    """Write a state_dict of about ``size`` bytes whose 16 tensors are transposed views."""
    side = int((size / 16 / 4) ** 0.5)
    random = torch.Generator().manual_seed(0)
    torch.save({str(number): torch.empty(side, side).uniform_(generator=random).T for number in range(16)}, path)


def small(data: bytes) -> bytes:
    """A checkpoint of one tensor with the elements ``data``."""
    file = BytesIO()
    torch.save({"epoch": 3, "model_state_dict": {"weight": torch.frombuffer(bytearray(data), dtype=torch.uint8)}}, file)
    return file.getvalue()


def write_giant(path: Path, parameters: int) -> None:
    """Write a general checkpoint of ``parameters`` small parameters (64 bytes) with Adam's state for each: four times
    as many tensors, with much work to parse.
    """
    values = torch.arange(3 * parameters * 16, dtype=torch.float32).reshape(3, parameters, 16)
    weights, exp_avg, exp_avg_sq = (list(map(torch.clone, rows)) for rows in values)
    state = {
        i: {"step": torch.tensor(1000.0), "exp_avg": exp_avg[i], "exp_avg_sq": exp_avg_sq[i]} for i in range(parameters)
    }
    torch.save(
        {
            "epoch": 3,
            "loss": 0.12,
            "model": {f"blocks.{i}.weight": weight for i, weight in enumerate(weights)},
            "optimizer": {"state": state, "param_groups": [{"lr": 1e-3, "params": list(range(parameters))}]},
        },
        path,
    )
