"""Deleting, restoring, purging and pinning over HTTP."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.api.conftest import general, problem
from tests.support.routes import OPERATIONS, address


@pytest.fixture
def model(http: httpx.Client, model_name: str) -> str:
    """The URL of a model with two checkpoints, the first of which has metrics and tags."""
    url = f"/v1/models/{model_name}"
    for epoch, fields in enumerate(({"metric.acc": "0.5", "tag.by": "me", "run": "a"}, {})):
        answer = http.post(f"{url}/checkpoints", content=general(epoch, seed=epoch), params=fields)
        assert answer.status_code == 201
    return url


def test_what_is_in_the_trash_is_found_by_no_route(http: httpx.Client, model: str) -> None:
    deleted = http.delete(f"{model}/checkpoints/1")
    assert deleted.status_code == 204
    until = datetime.fromisoformat(deleted.headers["Stateroom-Purged-At"])
    assert timedelta(days=6) < until - datetime.now(UTC) <= timedelta(days=7)
    bodies = {"PATCH": b"{}", "PUT": b"{}", "POST": b'{"target": {}}'}
    tried = 0
    for method, path in OPERATIONS:
        if "{ref}" in path and not path.endswith("/restore"):
            url = address(path).replace("/v1/models/a/b", model)
            assert problem(http.request(method, url, content=bodies.get(method))) == (404, "checkpoint-not-found"), path
            tried += 1
    assert tried > 15
    assert [each["version"] for each in http.get(f"{model}/checkpoints").json()["items"]] == [2]
    assert problem(http.put(f"{model}/aliases/prod", json={"ref": 1})) == (409, "checkpoint-trashed")
    (listed,) = http.get(f"{model}/checkpoints", params={"trash": "true"}).json()["items"]
    assert (listed["version"], listed["metrics"], listed["tags"]) == (1, {"acc": 0.5}, {"by": "me"})
    assert listed["deleted_at"] < listed["purged_at"]
    assert (listed["deleted_by"], listed["deleted_reason"]) == (None, "deleted")
    entries = http.get(f"{model}/history").json()["items"]
    assert [(entry["version"], entry["state"], entry["epoch"]) for entry in entries] == [
        (1, "trashed", 0),
        (2, "live", 1),
    ]
    assert entries[0]["metrics"] == {"acc": 0.5}


def test_a_restored_checkpoint_is_the_same_as_before(http: httpx.Client, model: str) -> None:
    before = http.get(f"{model}/checkpoints/1").json()
    file = http.get(f"{model}/checkpoints/1/original").content
    http.delete(f"{model}/checkpoints/1")
    restored = http.post(f"{model}/checkpoints/v1/restore")
    assert restored.status_code == 200
    assert restored.json() == before
    assert http.post(f"{model}/checkpoints/1/restore").json() == before  # a lost answer may be asked again
    assert http.get(f"{model}/checkpoints/1/original").content == file
    assert http.get(f"{model}/checkpoints", params={"trash": "true"}).json()["items"] == []
    assert problem(http.post(f"{model}/checkpoints/best/restore")) == (422, "moving-ref")
    assert problem(http.post(f"{model}/checkpoints/9/restore")) == (404, "checkpoint-not-found")


def test_a_purged_checkpoint_is_gone_for_good(http: httpx.Client, model: str) -> None:
    http.delete(f"{model}/checkpoints/1")
    for url in (f"{model}/checkpoints/1", f"{model}/checkpoints/2"):  # one in the trash, one that is not
        purged = http.delete(url, params={"purge": "true"})
        assert purged.status_code == 204
        assert "Stateroom-Purged-At" not in purged.headers
        assert problem(http.post(f"{url}/restore")) == (410, "checkpoint-purged")
        assert problem(http.delete(url, params={"purge": "true"})) == (404, "checkpoint-not-found")
    assert {entry["state"] for entry in http.get(f"{model}/history").json()["items"]} == {"purged"}


def test_a_pinned_checkpoint_stays(http: httpx.Client, model: str) -> None:
    pinned = http.put(f"{model}/checkpoints/epoch:0/pin", json={"reason": "for the paper"})
    assert pinned.status_code == 200
    assert pinned.headers["Stateroom-Checkpoint"].endswith("@1")
    pin = pinned.json()["pin"]
    assert pin.pop("at").endswith("Z")
    assert pin == {"reason": "for the paper", "by": None}
    for params in ({}, {"purge": "true"}):
        refused = http.delete(f"{model}/checkpoints/1", params=params)
        assert problem(refused) == (409, "checkpoint-in-use")
        assert "is pinned (for the paper)" in refused.json()["detail"]
    assert problem(http.put(f"{model}/checkpoints/1/pin", json={"reason": "x" * 1001})) == (422, "bad-text")
    assert problem(http.put(f"{model}/checkpoints/1/pin", json={"why": "x"})) == (422, "invalid-value")
    for _ in range(2):
        assert http.delete(f"{model}/checkpoints/1/pin").status_code == 204
    assert http.get(f"{model}/checkpoints/1").json()["pin"] is None
    assert http.delete(f"{model}/checkpoints/1").status_code == 204


def test_the_trash_and_the_history_come_in_pages(http: httpx.Client, model: str) -> None:
    for version in (1, 2):
        http.delete(f"{model}/checkpoints/{version}")
    for path, versions in (("checkpoints?trash=true&limit=1", [2, 1]), ("history?limit=1", [1, 2])):
        seen, cursor = [], ""
        for _ in versions:
            page = http.get(f"{model}/{path}{cursor}").json()
            seen += [item["version"] for item in page["items"]]
            cursor = f"&cursor={page['next']}"
        assert (seen, page["next"]) == (versions, None)
    for query in ("trash=true&order=loss", "trash=true&epoch=1"):
        assert problem(http.get(f"{model}/checkpoints?{query}")) == (422, "bad-filter")
    assert problem(http.get(f"{model}/history?cursor=x")) == (422, "bad-cursor")
