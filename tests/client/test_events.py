"""Events from Python and on the command line."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
import torch

from stateroom import Client, EventsExpired, InvalidRequest, ModelNotFound
from tests.client.conftest import Answer, StartScripted, in_turn
from tests.support.commands import run_program
from tests.support.server import Server, server_environment


def test_events_are_listed_and_followed(client: Client, model_name: str, server: Server) -> None:
    model = client.model(model_name)
    with pytest.raises(ModelNotFound):
        list(model.events())
    model.save({"w": torch.zeros(2)})
    model.alias("prod", 1)
    made, moved = model.events()
    assert (made.kind, made.model, made.version, made.alias) == ("checkpoint-created", model_name, 1, None)
    assert (moved.kind, moved.alias, moved.by) == ("alias-moved", "prod", None)
    assert moved.detail == {"previous_version": None}
    assert moved.at.tzinfo is not None
    assert list(model.events(made.id)) == [moved]
    assert list(model.events("newest")) == []
    assert list(model.events(kinds="alias-moved")) == [moved]
    with pytest.raises(InvalidRequest, match="there is no event"):
        list(model.events(10**15))
    assert moved.id in {event.id for event in client.events("tests", after=made.id)}
    assert [event.address for event in islice(client.events(after=made.id - 1), 1)] == ["127.0.0.1"]
    with ThreadPoolExecutor(1) as threads:
        following = model.events(moved.id, follow=True, kinds=["alias-removed", "checkpoint-created"])
        next_two = threads.submit(lambda: list(islice(following, 2)))
        model.unalias("prod")
        model.update(1, tags={"seen": "yes"})
        model.save({"w": torch.ones(2)})
        assert [event.kind for event in next_two.result()] == ["alias-removed", "checkpoint-created"]
    environment = server_environment({"STATEROOM_URL": server.base_url})
    listed = run_program("stateroom._cli.main", ["events", model_name, "--kind", "alias-moved"], environment)
    assert listed.stdout.split()[:6] == ["ID", "AT", "KIND", "VERSION", "ALIAS", "BY"]
    assert "alias-moved" in listed.stdout
    as_json = run_program("stateroom._cli.main", ["events", model_name, "--after", str(made.id), "--json"], environment)
    assert json.loads(as_json.stdout)[0]["id"] == moved.id


def test_a_reader_that_comes_too_late_is_told_where_to_go_on(scripted: StartScripted) -> None:
    problem = {"code": "events-expired", "detail": "events after 3 have been deleted", "after": 7}
    expired = Answer(410, json.dumps(problem).encode(), {"Content-Type": "application/problem+json"})
    url = scripted(in_turn(expired)).url
    with Client(url) as client, pytest.raises(EventsExpired, match="events after 3") as gone:
        list(client.model("a/b").events(3))
    assert gone.value.after == 7
