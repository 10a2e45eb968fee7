"""Ignite's Checkpoint saves to a server, and keeps what it promises to keep."""

from typing import Any

import pytest
import torch
from torch import nn

from stateroom import Model
from tests.support.docs import python_of

pytest.importorskip("ignite", reason="Ignite is not installed: make integrations")
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint

from stateroom.integrations.ignite import StateroomSaver

SCORES = [0.5, 0.8, 0.1, 0.7]


def train(model: Model, net: nn.Module, **keeping: Any) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step(engine: Engine, batch: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = net(batch).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = Engine(step)
    handler = Checkpoint(
        {"model": net, "optimizer": optimizer, "trainer": trainer}, StateroomSaver(model), n_saved=2, **keeping
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, handler)
    trainer.run([torch.randn(4, 3)], max_epochs=4)


def test_the_best_are_kept_with_their_score(model: Model) -> None:
    net = nn.Linear(3, 2)
    train(model, net, score_name="val_acc", score_function=lambda engine: SCORES[engine.state.epoch - 1])
    assert {each.slot: each.metrics for each in model.checkpoints()} == {
        "checkpoint_val_acc=0.8000.pt": {"val_acc": 0.8},
        "checkpoint_val_acc=0.7000.pt": {"val_acc": 0.7},
    }
    assert model.checkpoint("max:val_acc").metrics == {"val_acc": 0.8}


def test_the_newest_are_kept_without_a_score_and_training_resumes(model: Model) -> None:
    net = nn.Linear(3, 2)
    train(model, net)
    assert [each.slot for each in model.checkpoints()] == ["checkpoint_4.pt", "checkpoint_3.pt"]
    other = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.5, momentum=0.9)
    objects = {"model": other, "optimizer": optimizer, "trainer": Engine(lambda engine, batch: None)}
    Checkpoint.load_objects(objects, model.load("latest"))
    assert torch.equal(other.weight, net.weight)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert objects["trainer"].state.iteration == 4


def test_a_module_alone_is_saved_as_its_state_dict(model: Model) -> None:
    net = nn.Linear(3, 2)
    trainer = Engine(lambda engine, batch: None)
    trainer.add_event_handler(Events.COMPLETED, Checkpoint({"model": net}, StateroomSaver(model)))
    trainer.run([0], max_epochs=1)
    assert torch.equal(model.state_dict("latest")["weight"], net.weight)


def test_the_code_in_the_documentation_runs(server: Any) -> None:
    net = nn.Linear(3, 2)
    trainer = Engine(lambda engine, batch: None)
    names = {"net": net, "optimizer": torch.optim.SGD(net.parameters(), lr=0.1), "trainer": trainer, "loader": [0]}
    names["val_acc"] = lambda: 0.5
    code = python_of("docs/frameworks.md", "Ignite").replace("http://127.0.0.1:8765", server.base_url)
    exec(compile(code, "docs/frameworks.md", "exec"), names)
