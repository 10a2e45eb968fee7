"""Aliases from Python: moves, compare-and-swap, rollback, history."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from stateroom import Client, Conflict, InvalidRequest, Model, NotFound, PreconditionFailed, ServerUnavailable
from tests.support.proxy import proxy_to
from tests.support.server import Server


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    """A model with three checkpoints."""
    model = client.model(model_name)
    for version in range(1, 4):
        model.save({"w": torch.full((2,), float(version))})
    return model


def test_an_alias_is_a_ref(model: Model) -> None:
    made = model.alias("prod", 2, note="the first that works")
    assert (made.model, made.name, made.version, made.previous_version) == (model.name, "prod", 2, None)
    assert (made.note, made.protected, made.moved_by) == ("the first that works", False, None)
    assert made.moved_at.tzinfo is not None
    assert model.checkpoint("prod").aliases == ("prod",)
    assert torch.equal(model.state_dict("prod")["w"], torch.full((2,), 2.0))
    assert model.alias("prod", model.checkpoint(3)).previous_version == 2
    assert model.alias("prod", "v1").version == 1
    assert model.alias_at("prod").version == 1
    assert [alias.name for alias in model.aliases()] == ["prod"]
    with pytest.raises(Conflict, match="has the alias prod"):
        model.delete(1)


def test_who_expects_another_version_moves_nothing(model: Model) -> None:
    with pytest.raises(NotFound, match="has no alias 'prod'"):
        model.alias("prod", 1, expect=2)
    model.alias("prod", 1, expect=None)
    with pytest.raises(PreconditionFailed, match="means 1 now, and no such alias was expected"):
        model.alias("prod", 2, expect=None)
    with pytest.raises(PreconditionFailed, match="means 1 now, and 2 was expected"):
        model.alias("prod", 3, expect="v2")
    for change in (model.unalias, model.rollback):
        with pytest.raises(PreconditionFailed, match="means 1 now, and 3 was expected"):
            change("prod", expect=model.checkpoint(3))
    with pytest.raises(InvalidRequest, match="'latest' is not a version number"):
        model.alias("prod", 2, expect="latest")
    assert model.alias_at("prod").revision == 1
    assert model.alias("prod", 2, expect=1).version == 2
    model.unalias("prod", expect=2)
    assert model.aliases() == []


def test_of_many_promoters_one_wins(model: Model) -> None:
    model.alias("prod", 1)

    def promote(version: int) -> int | None:
        try:
            return model.alias("prod", version, expect=1).version
        except PreconditionFailed:
            return None

    with ThreadPoolExecutor(6) as pool:
        won = [version for version in pool.map(promote, [2, 3] * 3) if version is not None]
    assert won == [model.alias_at("prod").version]


def test_a_rollback_whose_answer_is_lost_is_not_done_twice(server: Server, model: Model) -> None:
    model.alias("prod", 1)
    model.alias("prod", 2)

    def rolled_back(asked: bytearray, answer: bytearray) -> bool:
        return b"rollback" in asked and answer.count(b"HTTP/1.1") == 2  # the look-up before it is the first

    with (
        proxy_to(server.port, rolled_back) as proxy,
        Client(proxy.url) as behind,
        pytest.raises(ServerUnavailable),
    ):
        behind.model(model.name).rollback("prod")
    assert proxy.lost == [rolled_back]
    assert [change.version for change in model.alias_history("prod")] == [1, 2, 1]
    assert model.rollback("prod", expect=1).version == 2


def test_the_history_says_what_was_when(model: Model) -> None:
    for version in (1, 2):
        model.alias("prod", version, note=f"try {version}")
    model.rollback("prod")
    model.unalias("prod")
    seen = [(change.revision, change.version, change.note) for change in model.alias_history("prod")]
    assert seen == [(4, None, None), (3, 1, "rollback from 2"), (2, 2, "try 2"), (1, 1, "try 1")]


def test_a_protected_alias_says_so(model: Model) -> None:
    model.alias("prod", 1)
    assert model.protect_alias("prod").protected
    assert model.alias("prod", 2).protected
    assert not model.protect_alias("prod", protected=False).protected


@pytest.mark.parametrize("name", ["", "..", "latest", "v3", "a b"])
def test_a_name_that_cannot_be_is_refused(model: Model, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a valid alias"):
        model.alias(name, 1)
