"""Scenario 13: a training job that is stopped goes on from its newest checkpoint, on another number of processes."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from stateroom import Client
from tests.conftest import StartServer
from tests.support.docs import python_of
from tests.support.processes import run_processes

STEPS = 6


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 5))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    batch = torch.randn(16, 40, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    net(batch).square().mean().backward()
    optimizer.step()


def whole(net: nn.Module) -> dict[str, torch.Tensor]:
    state = net.state_dict()
    return {key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in state.items()}


def test_a_job_goes_on_with_any_number_of_processes(fresh_server: StartServer, tmp_path: Path) -> None:
    # Before the processes are forked: a first step imports what theirs need.
    expected = network()
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01)
    for number in range(STEPS):
        step(expected, optimizer, number)
    get_state_dict(expected, optimizer)

    server = fresh_server()
    code = python_of("docs/frameworks.md", "Resume on another number of processes")
    code = code.replace("http://127.0.0.1:8765", server.base_url)

    def job(ranks: int, until: int, begins_at: int) -> None:
        """Train with a checkpoint after each step, and be stopped after step ``until``."""

        def work(rank: int) -> None:
            ways: dict[str, Any] = {}
            exec(compile(code, "docs/frameworks.md", "exec"), ways)
            net = fully_shard(network(), mesh=init_device_mesh("cpu", (ranks,)))
            # The learning rate that counts is that of the checkpoint.
            optimizer = torch.optim.Adam(net.parameters(), lr=0.01 if begins_at == 0 else 0.5)
            first = ways["resume"](net, optimizer)
            assert first == begins_at
            for number in range(first, until):
                step(net, optimizer, number)
                ways["save"](net, optimizer, number)

        run_processes(ranks, tmp_path, work)

    for ranks, until, begins_at in [(2, 2, 0), (3, 4, 2), (1, STEPS, 4)]:
        job(ranks, until, begins_at)

    with Client(server.base_url) as client:
        model = client.model("vision/sharded", run="run-7")
        found = model.state_dict("latest", component="model")
        assert [each.step for each in model.checkpoints(order="version")] == list(range(STEPS))
        # Sums over processes round otherwise.
        for key, tensor in whole(expected).items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-6)
