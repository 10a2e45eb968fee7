"""The state of an Accelerator is saved as one checkpoint, and loaded again."""

import os
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing import start_processes

from stateroom import Model
from tests.support.docs import python_of
from tests.support.ports import held_port

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: make integrations")
from stateroom.integrations.accelerate import load_state, save_state  # noqa: E402 - it may be missing

pytestmark = pytest.mark.filterwarnings("ignore")
"""accelerate warns of parts of torch that it uses."""


class Counter:
    """An object of the user's own, which accelerate saves with the rest."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": torch.tensor([self.count])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])


def prepared(counter: Counter) -> tuple[Any, nn.Module, torch.optim.Optimizer]:
    accelerator = accelerate.Accelerator(cpu=True)
    net = nn.Linear(4, 2)
    net, optimizer = accelerator.prepare(net, torch.optim.Adam(net.parameters()))
    accelerator.register_for_checkpointing(counter)
    return accelerator, net, optimizer


def step(accelerator: Any, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    accelerator.backward(net(torch.randn(3, 4)).square().mean())
    optimizer.step()


def test_training_goes_on_as_if_it_had_not_stopped(model: Model) -> None:
    counter = Counter()
    accelerator, net, optimizer = prepared(counter)
    step(accelerator, net, optimizer)
    counter.count = 7
    saved = save_state(accelerator, model, epoch=3, loss=0.25, metrics={"val_acc": 0.5}, tags={"by": "test"})
    assert saved is not None
    assert (saved.epoch, saved.loss, saved.metrics, saved.tags) == (3, 0.25, {"val_acc": 0.5}, {"by": "test"})
    assert torch.equal(model.state_dict(saved, component="model")["weight"], net.weight)
    step(accelerator, net, optimizer)

    other = Counter()
    accelerator, loaded, optimizer = prepared(other)
    assert load_state(accelerator, model, "latest") == saved
    assert other.count == 7
    step(accelerator, loaded, optimizer)  # with the random numbers of the first time
    assert torch.equal(loaded.weight, net.weight)


def _in_process(rank: int, ranks: int, port: int, model: Model) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    counter = Counter()
    accelerator, net, optimizer = prepared(counter)
    assert accelerator.num_processes == ranks
    step(accelerator, net, optimizer)
    counter.count = 7
    saved = save_state(accelerator, model, epoch=1)
    assert (saved is None) == (rank > 0)
    expected = net.module.weight.detach().clone()
    step(accelerator, net, optimizer)
    counter.count = 8
    assert load_state(accelerator, model, "latest").version == 1
    assert torch.equal(net.module.weight, expected)
    assert counter.count == 7
    accelerator.end_training()


def test_several_processes_save_one_checkpoint(model: Model) -> None:
    with held_port() as port:
        start_processes(_in_process, (2, port, model), nprocs=2, start_method="fork")
    (checkpoint,) = model.checkpoints()
    paths = {each.path for each in checkpoint.files()}
    assert {"model.safetensors", "random_states_0.pkl", "random_states_1.pkl"} <= paths


def test_the_code_in_the_documentation_runs(server: Any) -> None:
    accelerator, net, optimizer = prepared(Counter())
    step(accelerator, net, optimizer)
    code = python_of("docs/frameworks.md", "accelerate").replace("http://127.0.0.1:8765", server.base_url)
    exec(compile(code, "docs/frameworks.md", "exec"), {"accelerator": accelerator})
