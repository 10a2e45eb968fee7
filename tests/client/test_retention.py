"""Retention, slots and times of expiry from Python."""

from datetime import UTC, datetime, timedelta

import pytest
import torch

from stateroom import Client, Gone, InvalidRequest, Model


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name, run="a")


def save(model: Model, version: float, **fields: str) -> None:
    weight = torch.full((64, 64), version)
    model.save({"model": {"w": weight}}, epoch=int(version), loss=version, **fields)


def test_rules_are_set_shown_and_removed(model: Model) -> None:
    for version in (1.0, 2.0, 3.0):
        save(model, version)
    assert model.retention() is None
    preview = model.preview_retention(keep_last=1, keep_best="min:loss")
    assert preview.trashed == {2: "retention"}
    assert preview.kept == {1: ("keep_best min:loss",), 3: ("newest", "keep_last")}
    assert preview.trash_bytes >= 64 * 64 * 4
    rules = model.retention(keep_last=2, keep_best=[("min:loss", 1)], keep_every={"epochs": 5}, keep_for="1s")
    assert rules == {
        "keep_last": 2,
        "keep_best": [{"by": "min:loss", "count": 1}],
        "keep_every": {"epochs": 5, "steps": None},
        "keep_for": "1s",
    }
    assert model.retention() == rules
    assert model.retention(keep_best={"max:loss": 1}) == {"keep_best": [{"by": "max:loss", "count": 1}]}
    save(model, 0.5)
    assert [one.version for one in model.checkpoints()] == [4, 3]
    assert model.preview_retention().trashed == {}
    assert model.retention(None) is None
    with pytest.raises(InvalidRequest, match="removes all rules"):
        model.retention(None, keep_last=1)
    with pytest.raises(InvalidRequest, match="must be min:NAME or max:NAME"):
        model.retention(keep_best="val_acc")


def test_a_slot_and_a_ttl_are_given_at_each_way_to_save(model: Model) -> None:
    save(model, 1.0, slot="last", ttl="2h")
    job = model.save_async({"model": {"w": torch.ones(2)}}, slot="last", ttl="2h")
    (checkpoint,) = [job.result(), *(one for one in model.checkpoints() if one.version == 1)]
    assert checkpoint is not None
    assert (checkpoint.version, checkpoint.slot) == (2, "last")
    assert checkpoint.expires_at is not None
    assert timedelta(hours=1) < checkpoint.expires_at - datetime.now(UTC) <= timedelta(hours=2)


def test_a_thinned_checkpoint_loads_without_its_optimizer(model: Model) -> None:
    net = torch.nn.Linear(64, 64)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    for _ in range(2):
        model.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    model.retention(thin_after=1)
    model.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    assert model.checkpoint(1).thinned_at is not None
    assert torch.equal(model.state_dict(1, component="model")["weight"], net.weight)
    for gone in (lambda: model.load(1), lambda: model.state_dict(1, component="optimizer")):
        with pytest.raises(Gone, match="its state_dicts are still there: 'model'"):
            gone()


def test_a_namespace_has_rules_for_its_models(client: Client, model_name: str) -> None:
    namespace = "rules-" + model_name.rpartition("/")[2][-60:].strip("-.")
    made = client.set_namespace_retention(namespace, keep_last=1)
    assert made.retention == client.namespace(namespace).retention == {"keep_last": 1}
    model = client.model(f"{namespace}/m")
    for version in (1.0, 2.0):
        save(model, version)
    assert [one.version for one in model.checkpoints()] == [2]
    assert model.retention() is None
    with pytest.raises(InvalidRequest, match="either rules, or None"):
        client.set_namespace_retention(namespace)
    assert client.set_namespace_retention(namespace, None).retention is None
