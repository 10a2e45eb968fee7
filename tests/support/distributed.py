"""Folders that torch.distributed.checkpoint writes, from one to four processes."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from tests.support.processes import run_processes

LARGE = (2_100, 2_049)
"""Shape of a matrix of more than a block, whose rows end anywhere in a block. It is sent in parts."""


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(70, 50), nn.ReLU(), nn.Linear(50, 7))


def write_trained(folder: Path, ranks: int, scratch: Path) -> Path:
    """Write the model and the optimizer of a training with FSDP2 (one process: without), after one step."""

    def work(rank: int) -> None:
        torch.manual_seed(ranks)
        net = network()
        if ranks > 1:
            fully_shard(net, mesh=init_device_mesh("cpu", (ranks,)))
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        net(torch.ones(4, 70)).square().sum().backward()
        optimizer.step()
        model, state = get_state_dict(net, optimizer)
        dcp.save({"model": model, "optimizer": state, "epoch": 5, "loss": 0.25}, checkpoint_id=folder)

    run_processes(ranks, scratch, work)
    return folder


def write_sharded(folder: Path, scratch: Path) -> Path:
    """Write a state_dict with tensors that four processes shard in every way, and values of all kinds."""

    def work(_rank: int) -> None:
        line, grid = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2))
        torch.manual_seed(0)

        def rows(tensor: torch.Tensor) -> torch.Tensor:
            return distribute_tensor(tensor, line, [Shard(0)], src_data_rank=None)

        def columns(tensor: torch.Tensor, dim: int = 1) -> torch.Tensor:
            return distribute_tensor(tensor, line, [Shard(dim)], src_data_rank=None)

        def both(tensor: torch.Tensor, first: int = 0, second: int = 1) -> torch.Tensor:
            return distribute_tensor(tensor, grid, [Shard(first), Shard(second)], src_data_rank=None)

        model = {
            "rows": rows(torch.randn(200, 300)),
            "rows.uneven": rows(torch.randn(7, 1_000)),
            "rows.of.two": rows(torch.randn(2, 5)),  # two processes have none
            "rows.bfloat16": rows(torch.randn(9, 8).bfloat16()),
            "rows.float8": rows(torch.randn(40, 300).to(torch.float8_e4m3fn)),
            "rows.int64": rows(torch.arange(6_000).reshape(60, 100)),
            "columns": columns(torch.randn(200, 300)),
            "columns.uneven": columns(torch.randn(30, 1_001)),
            "columns.narrow": columns(torch.randn(3_000, 4).half()),
            "columns.complex": columns(torch.randn(100, 40, dtype=torch.complex128)),
            "columns.float8": columns(torch.randn(90, 200).to(torch.float8_e5m2)),
            "cube": columns(torch.randn(20, 30, 40), 2),
            "conv": columns(torch.randn(16, 12, 3, 3)),
            "grid": both(torch.randn(64, 64)),
            "grid.uneven": both(torch.randn(65, 63).bfloat16()),
            "grid.large": both(torch.randn(LARGE)),
            "grid.of.rows": both(torch.randn(40, 300), 0, 0),
            "replicated": distribute_tensor(torch.randn(33, 50), line, [Replicate()], src_data_rank=None),
            "plain": torch.randn(10, 200),
            "transposed": torch.randn(40, 50).t(),
            "number": torch.tensor(3.0),
            "flags": torch.tensor([True, False, True]),
            "empty": torch.empty(0, 4),
        }
        values = {"epoch": 3, "loss": 0.5, "notes": ["a", [1, 2.5, {"deep": torch.ones(3)}], None], "none": None}
        dcp.save({"model": model, **values}, checkpoint_id=folder)

    run_processes(4, scratch, work)
    return folder


def whole(folder: Path, scratch: Path) -> Any:
    """Load what a folder holds as torch itself puts it together."""
    path = scratch / f"{folder.name}.whole.pt"
    dcp_to_torch_save(folder, path)
    return torch.load(path)
