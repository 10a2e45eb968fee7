"""Saving and looking up checkpoints through a real server."""

import copy
import io
import math
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from stateroom import (
    CheckpointNotFound,
    Client,
    Conflict,
    InvalidRequest,
    Model,
    ModelNotFound,
    NotACheckpoint,
    NoTensors,
    ShardedTensor,
    StateroomWarning,
    Unauthorized,
)
from tests.conftest import StartServer


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def general_checkpoint(epoch: int = 3, loss: float = 0.5) -> dict[str, object]:
    return {"epoch": epoch, "loss": loss, "model_state_dict": nn.Linear(3, 2).state_dict()}


def saved(obj: object) -> bytes:
    file = io.BytesIO()
    torch.save(obj, file)
    return file.getvalue()


def test_a_file_is_stored_and_described(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "model.tar"
    path.write_bytes(saved(general_checkpoint()))
    checkpoint = model.upload(path, metrics={"val_acc": 0.25}, tags={"author": "me"})
    assert str(checkpoint) == f"{model.name}@1"
    assert (checkpoint.epoch, checkpoint.loss, checkpoint.run) == (3, 0.5, None)
    assert (checkpoint.metrics, checkpoint.tags) == ({"val_acc": 0.25}, {"author": "me"})
    assert [(part.name, part.kind, part.keys, part.bytes) for part in checkpoint.components] == [
        ("model_state_dict", "state_dict", 2, 32)
    ]
    assert checkpoint.bytes == path.stat().st_size
    assert checkpoint.created_at.tzinfo is not None
    assert model.checkpoint(1) == model.checkpoint("latest") == model.checkpoint(checkpoint) == checkpoint


def test_what_the_caller_says_goes_before_what_the_file_says(model: Model) -> None:
    checkpoint = model.upload(io.BytesIO(saved(general_checkpoint(epoch=3))), epoch=7, step=100, loss=0.25)
    assert (checkpoint.epoch, checkpoint.step, checkpoint.loss) == (7, 100, 0.25)


def test_a_pipe_can_be_uploaded(model: Model) -> None:
    reader, writer = os.pipe()
    with open(writer, "wb") as file:  # noqa: PTH123  a descriptor has no path
        file.write(saved(general_checkpoint()))
    with open(reader, "rb") as file:  # noqa: PTH123  a descriptor has no path
        assert model.upload(file).epoch == 3


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4" + bytes(100)])
def test_what_is_no_checkpoint_is_refused(content: bytes, model: Model) -> None:
    with pytest.raises(NotACheckpoint) as refused:
        model.upload(io.BytesIO(content))
    assert refused.value.status == 422
    with pytest.raises(ModelNotFound):
        model.checkpoint("latest")


def test_a_checkpoint_without_tensors_is_refused(model: Model) -> None:
    with pytest.raises(NoTensors):
        model.save({"epoch": 3})


def test_what_is_saved_is_loaded_as_it_was(model: Model) -> None:
    checkpoint = model.save(general_checkpoint(), step=40)
    assert checkpoint is not None
    assert (checkpoint.epoch, checkpoint.step) == (3, 40)
    assert model.load(checkpoint)["epoch"] == 3


def test_best_means_what_it_was_set_to(model: Model) -> None:
    for value in (1.0, 3.0, 2.0):
        model.save(general_checkpoint(loss=value), metrics={"acc": value})
    assert model.checkpoint("best").version == 1
    assert model.set_best("max:acc").best == "max:acc"
    assert model.checkpoint("best").version == 2
    with pytest.raises(InvalidRequest, match="min:NAME"):
        model.set_best("acc")


def test_a_deleted_model_comes_back_with_the_next_version(client: Client, model: Model) -> None:
    model.save(general_checkpoint())
    model.set_best("max:loss")
    with pytest.raises(Conflict, match="has a checkpoint; delete"):
        client.delete_model(model.name)
    model.delete(1)
    client.delete_model(model.name)
    assert model.name not in {each.name for each in client.models()}
    for gone in (lambda: list(model.checkpoints()), lambda: model.set_best("min:loss"), lambda: model.checkpoint(1)):
        with pytest.raises(ModelNotFound):
            gone()
    with pytest.raises(ModelNotFound):
        client.delete_model(model.name)
    back = model.save(general_checkpoint())
    assert back is not None
    assert back.version == 2
    assert next(each.best for each in client.models() if each.name == model.name) == "min:loss"


def test_a_rename_may_be_an_expression(model: Model) -> None:
    model.save({"model": {f"block.{i}.w": torch.ones(1) for i in range(2)}})
    assert list(model.state_dict("latest", rename={r"re:block\.(\d)\.w": r"b\1.w"})) == ["b0.w", "b1.w"]


@pytest.mark.parametrize("run", [None, "nightly"])
def test_a_model_and_a_client_survive_pickling_and_copying(run: str | None, client: Client, model_name: str) -> None:
    model = client.model(model_name, run)
    model.save(general_checkpoint())
    copies = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)]
    for again in (pickle.loads(pickle.dumps(client)), copy.deepcopy(client)):
        assert again.url == client.url
        copies.append(again.model(model_name, run))
    for version, other in enumerate(copies, 2):
        assert (other.name, other.run) == (model_name, run)
        assert other.load("latest")["epoch"] == 3
        assert other.save(general_checkpoint()).version == version


def test_only_rank_zero_saves(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert model.save(general_checkpoint()) is None
    with pytest.raises(ModelNotFound):
        model.checkpoint("latest")
    assert model.save(general_checkpoint(), rank_zero_only=False).version == 1


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("way", ["save", "save_async"])
def test_a_shard_is_refused_on_every_rank(rank: str, way: str, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that went on alone would wait for ever in its next collective."""
    monkeypatch.setenv("RANK", rank)
    shard = type("DTensor", (torch.Tensor,), {"__module__": "torch.distributed.tensor"})
    with pytest.raises(ShardedTensor, match=r"model\.weight is a DTensor"):
        getattr(model, way)({"model": {"weight": torch.zeros(3).as_subclass(shard)}})


def test_saving_a_whole_module_warns_at_once_and_names_it(model: Model) -> None:
    net = nn.Linear(3, 2)
    with pytest.warns(
        StateroomWarning, match=r"torch\.nn\.modules\.linear\.Linear.*The object itself .*state_dict"
    ) as seen:
        checkpoint = model.save(net)
    assert seen[0].filename == __file__
    assert checkpoint is not None
    assert checkpoint.unsafe_globals == ("torch.nn.modules.linear.Linear",)


def test_saving_what_weights_only_does_not_load_warns(model: Model) -> None:
    with pytest.warns(StateroomWarning, match="pathlib"):
        model.save({"where": Path("here"), "net": nn.Linear(3, 2).state_dict()})


def test_what_torch_saves_but_cannot_scan_is_saved(model: Model) -> None:
    checkpoint = model.save({"x": 1 << 5000, "net": nn.Linear(3, 2).state_dict()})
    assert model.load(checkpoint, weights_only=False)["x"] == 1 << 5000


def test_what_the_user_has_told_torch_to_load_is_no_cause_for_a_warning(model: Model) -> None:
    with torch.serialization.safe_globals([nn.Linear]):
        checkpoint = model.save({"net": nn.Linear(3, 2)})
        assert checkpoint is not None
        assert isinstance(model.load(checkpoint)["net"], nn.Linear)


def test_metrics_and_tags_are_added_changed_and_removed(model: Model) -> None:
    model.upload(
        io.BytesIO(saved(general_checkpoint())), metrics={"acc": 0.5, "old": 1}, tags={"author": "me", "x": "y"}
    )
    changed = model.update("latest", metrics={"acc": torch.tensor(0.75), "old": None}, tags={"x": "z", "author": None})
    assert (changed.metrics, changed.tags) == ({"acc": 0.75}, {"x": "z"})
    assert model.checkpoint(1) == changed


def test_numbers_that_are_not_finite_are_kept_and_named(model: Model) -> None:
    checkpoint = model.upload(io.BytesIO(saved(general_checkpoint())), loss=math.nan, metrics={"acc": math.inf})
    assert (checkpoint.loss, checkpoint.metrics) == (None, {"acc": None})
    assert set(checkpoint.nonfinite) == {"loss", "metric.acc"}
    checkpoint = model.update(checkpoint, metrics={"acc": 0.5, "f1": -math.inf})
    assert set(checkpoint.nonfinite) == {"loss", "metric.f1"}


def test_checkpoints_come_in_order_filtered_over_all_pages(model: Model) -> None:
    for epoch in range(12):
        model.upload(io.BytesIO(saved(general_checkpoint(epoch, loss=abs(epoch - 5.5)))), tags={"odd": str(epoch % 2)})
    assert [each.epoch for each in model.checkpoints()] == list(range(11, -1, -1))
    assert [each.epoch for each in model.checkpoints(limit=3)] == [11, 10, 9]
    assert list(model.checkpoints(limit=0)) == []
    assert [each.epoch for each in model.checkpoints(order="epoch", where={"epoch.ge": 9, "tag.odd": 1})] == [9, 11]
    assert model.checkpoint("best").epoch == 6
    assert model.checkpoint("epoch:4").epoch == 4


def test_a_run_sees_its_own_checkpoints(client: Client, model_name: str) -> None:
    night, day = client.model(model_name, run="night"), client.model(model_name, run="day")
    assert night.upload(io.BytesIO(saved(general_checkpoint(1)))).run == "night"
    day.upload(io.BytesIO(saved(general_checkpoint(2))))
    assert night.checkpoint("latest").epoch == 1
    assert [each.epoch for each in night.checkpoints()] == [1]
    assert client.model(model_name).checkpoint("latest").epoch == 2
    assert night.load("epoch:2", default="first") == "first"


def test_a_checkpoint_is_deleted_by_its_number(model: Model) -> None:
    checkpoint = model.upload(io.BytesIO(saved(general_checkpoint())))
    with pytest.raises(InvalidRequest, match="number"):
        model.delete("latest")
    model.delete(checkpoint)
    with pytest.raises(CheckpointNotFound):
        model.checkpoint(checkpoint)


def test_a_run_deletes_only_its_own_checkpoints(client: Client, model_name: str) -> None:
    night, day = client.model(model_name, run="night"), client.model(model_name, run="day")
    content = io.BytesIO(saved(general_checkpoint()))
    mine = night.upload(content)
    with pytest.raises(CheckpointNotFound):
        day.delete(mine.version)
    with pytest.raises(InvalidRequest, match="number"):
        night.delete("latest")
    assert night.checkpoint("latest") == mine
    night.delete(mine.version)
    with pytest.raises(CheckpointNotFound):
        client.model(model_name).checkpoint(mine.version)


def test_a_clients_models_are_listed_by_name(fresh_server: StartServer) -> None:
    with Client(fresh_server().base_url) as client:
        assert list(client.models()) == []
        for name in ("b/x", "a/y"):
            client.model(name).upload(io.BytesIO(saved(general_checkpoint())))
        assert [(each.name, each.checkpoints, each.best) for each in client.models()] == [
            ("a/y", 1, "min:loss"),
            ("b/x", 1, "min:loss"),
        ]


def test_a_wrong_token_is_said_to_be_wrong(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_SERVER_TOKEN": "right"})
    content = saved({"w": torch.zeros(4_000_000)})
    for token in (None, "wrong"):
        model = Client(server.base_url, token, retries=0).model("a/b")
        with pytest.raises(Unauthorized):
            model.checkpoint("latest")
        with pytest.raises(Unauthorized):
            model.upload(io.BytesIO(content))
    assert Client(server.base_url, "right").model("a/b").upload(io.BytesIO(content)).version == 1
