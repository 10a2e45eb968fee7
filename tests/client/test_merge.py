"""Merges through the client and the command line."""

import json
from typing import Any

import pytest
import torch

from stateroom import Client, InvalidRequest, MergeSource, Model
from tests.support.commands import run_program
from tests.support.server import Server, server_environment


def w(number: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3,), float(number)), "n": torch.tensor(int(number))}


@pytest.fixture
def model(server: Server, model_name: str) -> Any:
    with Client(server.base_url) as client:
        yield client.model(model_name)


def test_the_last_ones_of_a_run_are_averaged_and_merges_are_not(model: Model, server: Server) -> None:
    with Client(server.base_url) as client:
        ours, other = client.model(model.name, run="ours"), client.model(model.name, run="other")
        for number in range(4):
            ours.save({"epoch": number, "model_state_dict": w(number)})
            other.save({"epoch": number, "model_state_dict": w(100)})
        made = ours.merge(last=3, epoch=3, metrics={"acc": 0.5}, tags={"why": "soup"})
        assert (made.run, made.epoch, made.metrics, made.tags) == ("ours", 3, {"acc": 0.5}, {"why": "soup"})
        assert made.merge is not None
        assert made.merge.of == tuple(MergeSource(f"{model.name}@{version}", 1 / 3) for version in (3, 5, 7))
        assert torch.equal(ours.state_dict(made)["w"], torch.full((3,), 2.0))
        assert torch.equal(ours.state_dict(made)["n"], torch.tensor(3))
        assert ours.merge(last=3).merge == made.merge
        few = ours.merge(last=9, where={"epoch.ge": 2})
        assert few.merge is not None
        assert [source.checkpoint for source in few.merge.of] == [f"{model.name}@5", f"{model.name}@7"]
        assert {each.relation for each in made.lineage().ancestors} == {"merged_from"}


def test_checkpoints_with_weights_are_combined(model: Model, server: Server) -> None:
    one, two = model.save(w(1)), model.save(w(3))
    assert torch.equal(model.state_dict(model.merge([one, two]))["w"], torch.full((3,), 2.0))
    assert torch.equal(model.state_dict(model.merge([(1, 3), (two, 1)]))["w"], torch.full((3,), 1.5))
    task = model.merge([(2, 1), (1, -1)], method="linear", normalize=False)
    assert torch.equal(model.state_dict(task)["w"], torch.full((3,), 2.0))
    between = model.merge([1, 2], method="slerp", t=0.25)
    torch.testing.assert_close(model.state_dict(between)["w"], torch.full((3,), 1.5))
    moving = model.merge([1, 2], method="ema", decay=0.75)
    assert torch.equal(model.state_dict(moving)["w"], torch.full((3,), 1.5))
    with Client(server.base_url) as client:
        other = client.model(f"{model.name}-other")
        made = other.merge([f"{model.name}@1", two])
        assert made.model == other.name
        assert torch.equal(other.state_dict("latest")["w"], torch.full((3,), 2.0))


def test_what_cannot_be_merged_raises(model: Model) -> None:
    model.save(w(1))
    with pytest.raises(InvalidRequest, match="no checkpoint"):
        model.merge(last=2, where={"epoch.ge": 5})
    model.save({"w": torch.ones(4)})
    with pytest.raises(InvalidRequest, match="does not fit"):
        model.merge([1, 2])
    for wrong in ({}, {"of": [1], "last": 2}, {"of": 1}, {"of": [1, 2], "t": 0.5, "method": "linear"}, {"last": 0}):
        with pytest.raises(InvalidRequest):
            model.merge(**wrong)
    assert len(list(model.checkpoints())) == 2


def test_the_command_merges(model: Model, server: Server) -> None:
    env = {**server_environment({"STATEROOM_URL": server.base_url}), "NO_PROXY": "*"}

    def run(*arguments: str) -> str:
        done = run_program("stateroom._cli.main", list(arguments), env)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    for number in range(3):
        model.save(w(number), epoch=number)
    made = json.loads(run("merge", model.name, "--last", "2", "--tag", "a=b", "--json"))
    assert (made["version"], made["tags"], len(made["merge"]["of"])) == (4, {"a": "b"}, 2)
    said = run("merge", model.name, "1=0.5", "3=1.5", "--method", "linear", "--normalize")
    assert f"linear of {model.name}@1 * 0.25, {model.name}@3 * 0.75" in said
    assert torch.equal(model.state_dict("latest")["w"], torch.full((3,), 1.5))
    assert "merged from * 0.25" in run("lineage", model.name, "latest")
    assert f"{model.name}@1 * 0.25" in run("show", f"{model.name}@5")
    assert run_program("stateroom._cli.main", ["merge", model.name, "1=x"], env).returncode == 2
