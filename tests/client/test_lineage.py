"""Lineage from Python: what a save says by itself about the checkpoint that its training began with."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from stateroom import (
    Client,
    InvalidRequest,
    Model,
    NotACheckpoint,
    SaveJob,
    SpooledCheckpoint,
    StateroomWarning,
    Superseded,
)
from stateroom._origins import BY_ITSELF, Origins
from tests.support.server import Server


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return net, optimizer


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    """A model with a checkpoint that has an optimizer, and one that is a bare state_dict."""
    net, optimizer = trained()
    model = client.model(model_name)
    model.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, epoch=1)
    model.save(net.state_dict(), epoch=2)
    return model


def test_a_save_names_what_its_training_resumed_from_once(model: Model, tmp_path: Path) -> None:
    net, optimizer = trained()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    wider = nn.Linear(3, 2)
    wider.register_parameter("extra", nn.Parameter(torch.ones(1)))
    first, second = f"{model.name}@1", f"{model.name}@2"

    for resume, expected in (
        (lambda: model.load(1), first),
        (lambda: model.load_into({"net": net, "optimizer": optimizer}, model.checkpoint(1)), first),
        (lambda: model.load_into(net, 2), second),
        (lambda: model.load_into(wider, 2, strict=False), None),
        (lambda: model.load(2), None),
        (lambda: model.state_dict(2), None),
        (lambda: model.download(1, tmp_path / "1.pt"), None),
        (lambda: model.load(9, default=None), None),
    ):
        resume()
        assert [model.save(net.state_dict()).parent for _ in range(2)] == [expected, None]
    for save in (
        lambda: model.upload(tmp_path / "net.pt"),
        lambda: model.save_async(net.state_dict()).result(),
    ):
        model.load(1)
        assert [save().parent for _ in range(2)] == [first, None]
    model.load(1)
    assert copy.deepcopy(model).save(net.state_dict()).parent is None
    assert model.save(net.state_dict(), parent=None).parent is None
    assert model.save(net.state_dict()).parent is None


def test_a_warm_start_is_named_beside_the_parent(client: Client, model: Model) -> None:
    net, _ = trained()
    model.load(1)
    report = model.warmstart(net, "latest", include=["weight"])
    saved = model.save(net.state_dict())
    assert (saved.parent, saved.warm_started_from) == (f"{model.name}@1", report.checkpoint)
    assert model.save(net.state_dict()).warm_started_from is None
    other = client.model(f"{model.name}-other")
    told = other.save(net.state_dict(), parent=saved, warm_started_from=f"{model.name}@1")
    assert other.save(net.state_dict(), parent="v1").parent == str(told)
    lineage = other.checkpoint(2).lineage()
    assert [(str(each), each.relation, each.depth, each.state) for each in lineage.ancestors] == [
        (str(told), "parent", 1, "live"),
        (f"{model.name}@1", "warm_started_from", 2, "live"),
        (str(saved), "parent", 2, "live"),
        (f"{model.name}@2", "warm_started_from", 3, "live"),
    ]
    assert (lineage.ancestors[1].epoch, lineage.ancestors[1].via) == (1, str(told))
    assert lineage.ancestors[1].created_at == model.checkpoint(1).created_at
    client.model(told.model).delete(told.version)
    assert [(str(each), each.state) for each in saved.lineage().descendants] == [
        (str(told), "trashed"),
        (f"{told.model}@2", "live"),
    ]
    with pytest.raises(InvalidRequest, match="has no client to ask for a lineage"):
        copy.copy(saved).lineage()


def test_what_names_no_version_is_refused_and_a_failed_save_leaves_its_origin_to_the_next(
    model: Model, tmp_path: Path
) -> None:
    net, _ = trained()
    (tmp_path / "empty").write_bytes(b"no checkpoint")
    model.load(1)
    before = len(list(model.checkpoints()))
    for wrong, match in (
        ("latest", "give a Checkpoint, a version number or 'namespace/name@N'"),
        (f"{model.name}@latest", "the name of a checkpoint is expected"),
        (999, "never existed: the newest version is 2"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            model.save(net.state_dict(), parent=wrong)
    with pytest.raises(NotACheckpoint):
        model.upload(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        model.upload(tmp_path / "missing")
    assert len(list(model.checkpoints())) == before
    assert model.save(net.state_dict()).parent == f"{model.name}@1"


def test_a_dropped_save_leaves_its_origin_to_the_next() -> None:
    """And none is lost when another one was loaded meanwhile."""
    origins, job = Origins("a/b"), SaveJob()
    origins.resumed("a/b@1")
    origins.warm_started("a/b@2")
    with origins.taken(BY_ITSELF, BY_ITSELF) as taken:
        origins.follow(job, taken)
    origins.resumed("a/b@3")
    job.end(Superseded("a newer save"))
    assert not job.is_heard_of
    with origins.taken(BY_ITSELF, BY_ITSELF) as taken:
        assert taken == [("parent", "a/b@3"), ("warm_started_from", "a/b@2")]


def test_an_origin_that_the_server_has_lost_fails_one_save_and_not_the_next(client: Client, model_name: str) -> None:
    """As after a restore of an old backup, which the loaded checkpoint is not in."""
    model = client.model(model_name)
    for save in (lambda: model.save({"w": torch.ones(1)}), lambda: model.save_async({"w": torch.ones(1)}).result()):
        model._origins.resumed(f"{model_name}@9")
        with pytest.raises(InvalidRequest, match="never existed"):
            save()
        assert save().parent is None


def test_a_save_that_waits_keeps_its_origin_where_that_is_known(server: Server, model: Model, tmp_path: Path) -> None:
    net, _ = trained()
    with Client("http://127.0.0.1:9", spool_dir=tmp_path / "spool", retries=0) as away:
        for parent in (model.checkpoint(1), f"{model.name}@999"):
            with pytest.warns(StateroomWarning, match="waits in"):
                kept = away.model(model.name).save(net.state_dict(), parent=parent)
            assert isinstance(kept, SpooledCheckpoint)
            assert kept.parent == str(parent)
    with Client(server.base_url, spool_dir=tmp_path / "spool") as back:
        assert [each.parent for each in back.send_spooled()] == [f"{model.name}@1", None]
