"""Deleting, restoring and pinning from Python."""

from datetime import UTC, datetime, timedelta

import pytest
import torch

from stateroom import CheckpointNotFound, Client, Conflict, Gone, Model


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    model = client.model(model_name)
    for version in (1, 2):
        model.save({"w": torch.full((2,), float(version))}, loss=float(version), metrics={"acc": 0.5})
    return model


def test_a_deleted_checkpoint_can_be_restored(model: Model) -> None:
    before = model.checkpoint(1)
    until = model.delete(1)
    assert until is not None
    assert timedelta(days=6) < until - datetime.now(UTC) <= timedelta(days=7)
    with pytest.raises(CheckpointNotFound, match="is in the trash"):
        model.load(1)
    (trashed,) = model.checkpoints(trash=True)
    assert trashed.version == 1
    assert trashed.deleted_at is not None
    assert trashed.purged_at is not None
    assert [(entry.version, entry.state, entry.loss) for entry in model.history()] == [
        (1, "trashed", 1.0),
        (2, "live", 2.0),
    ]
    assert model.restore(1) == before
    assert torch.equal(model.load(1)["w"], torch.ones(2))
    assert model.delete(1, purge=True) is None
    with pytest.raises(Gone, match="was purged"):
        model.restore(1)


def test_a_pinned_checkpoint_is_not_deleted(model: Model) -> None:
    pin = model.pin("latest", reason="for the paper").pin
    assert pin is not None
    assert (pin.reason, pin.by) == ("for the paper", None)
    with pytest.raises(Conflict, match="is pinned"):
        model.delete(2)
    model.unpin(2)
    assert model.checkpoint(2).pin is None
    model.delete(2)
