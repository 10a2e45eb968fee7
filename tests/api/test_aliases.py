"""Aliases over HTTP: moves, compare-and-swap, protection, rollback and history."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.conftest import general, problem
from tests.conftest import StartServer
from tests.support.server import Server
from tests.support.tokens import bearer, catalog_url, make_token


@pytest.fixture
def model(http: httpx.Client, model_name: str) -> str:
    """The URL of a model with three checkpoints."""
    url = f"/v1/models/{model_name}"
    for epoch in range(3):
        answer = http.post(f"{url}/checkpoints", content=general(epoch), params={"run": f"run-{epoch}"})
        assert answer.status_code == 201
    return url


def moved(http: httpx.Client, model: str, ref: str | int, name: str = "prod", **headers: str) -> httpx.Response:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.put(f"{model}/aliases/{name}", json={"ref": ref}, headers=headers)


def test_an_alias_is_a_ref_wherever_one_is_taken(http: httpx.Client, model: str) -> None:
    made = moved(http, model, 2)
    assert made.status_code == 201
    assert made.headers["ETag"] == '"1"'
    alias = made.json()
    assert alias.pop("moved_at").endswith("Z")
    assert alias == {
        "alias": "prod",
        "version": 2,
        "previous_version": None,
        "revision": 1,
        "protected": False,
        "note": None,
        "moved_by": None,
    }
    checkpoint = http.get(f"{model}/checkpoints/prod")
    assert (checkpoint.json()["version"], checkpoint.json()["aliases"]) == (2, ["prod"])
    assert checkpoint.headers["Content-Location"].endswith("/checkpoints/2")
    for path in ("state_dict", "file", "tensors", "original", "state_dict/index"):
        assert http.get(f"{model}/checkpoints/prod/{path}").headers["Stateroom-Checkpoint"].endswith("@2")
    assert moved(http, model, 3).status_code == 200
    assert http.get(f"{model}/checkpoints/prod").json()["version"] == 3
    assert http.get(f"{model}/checkpoints/2").json()["aliases"] == []
    listed = http.get(f"{model}/checkpoints").json()["items"]
    assert [each["aliases"] for each in listed] == [["prod"], [], []]


@pytest.mark.parametrize("ref", ["2", "v2", 2, "epoch:1", "staging"])
def test_it_moves_to_whatever_a_ref_means_now(http: httpx.Client, model: str, ref: str | int) -> None:
    moved(http, model, "2", "staging")
    assert moved(http, model, ref).json()["version"] == 2


def test_in_a_run_it_means_only_a_checkpoint_of_that_run(http: httpx.Client, model: str) -> None:
    moved(http, model, 2)
    assert http.get(f"{model}/checkpoints/prod", params={"run": "run-1"}).json()["version"] == 2
    assert problem(http.get(f"{model}/checkpoints/prod", params={"run": "run-2"})) == (404, "checkpoint-not-found")


def test_without_a_change_nothing_is_moved(http: httpx.Client, model: str) -> None:
    first = moved(http, model, 1).json()
    assert moved(http, model, "v1").json() == first
    noted = http.put(f"{model}/aliases/prod", json={"ref": 1, "note": "tried"}).json()
    assert (noted["revision"], noted["note"], noted["previous_version"]) == (2, "tried", None)


def test_of_two_promoters_exactly_one_wins(server: Server, http: httpx.Client, model: str) -> None:
    tag = moved(http, model, 1).headers["ETag"]

    def promote(version: int) -> httpx.Response:
        with server.client() as promoter:
            return moved(promoter, model, version, If_Match=tag)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(promote, [2, 3] * 4))
    assert sorted(answer.status_code for answer in answers) == [200, *[412] * 7]
    won = next(answer.json() for answer in answers if answer.status_code == 200)
    for answer in answers:
        if answer.status_code == 412:
            assert answer.json()["code"] == "precondition-failed"
            assert answer.json()["state"] == won
            assert answer.headers["ETag"] == '"2"'
    assert http.get(f"{model}/aliases/prod").json() == won


def test_it_is_made_only_once_if_that_is_asked(http: httpx.Client, model: str) -> None:
    assert problem(moved(http, model, 1, If_Match='"1"')) == (412, "precondition-failed")
    assert moved(http, model, 1, If_None_Match="*").status_code == 201
    assert problem(moved(http, model, 2, If_None_Match="*")) == (412, "precondition-failed")
    assert http.get(f"{model}/aliases/prod", headers={"If-None-Match": '"1"'}).status_code == 304


def test_a_rollback_is_undone_by_another(http: httpx.Client, model: str) -> None:
    back = f"{model}/aliases/prod/rollback"
    moved(http, model, 1)
    assert problem(http.post(back)) == (409, "no-previous-version")
    moved(http, model, 3)
    assert problem(http.post(back, headers={"If-Match": '"1"'})) == (412, "precondition-failed")
    answer = http.post(back, headers={"If-Match": '"2"'}).json()
    assert (answer["version"], answer["previous_version"], answer["note"]) == (1, 3, "rollback from 3")
    assert http.post(back).json()["version"] == 3
    assert http.delete(f"{model}/checkpoints/1").status_code == 204
    assert problem(http.post(back)) == (409, "no-previous-version")
    assert http.get(f"{model}/aliases/prod").json()["version"] == 3


def test_its_checkpoint_is_not_deleted(http: httpx.Client, model: str) -> None:
    moved(http, model, 2)
    moved(http, model, 2, "canary")
    answer = http.delete(f"{model}/checkpoints/2")
    assert problem(answer) == (409, "checkpoint-in-use")
    assert "canary, prod" in answer.json()["detail"]
    for name in ("prod", "canary"):
        assert http.delete(f"{model}/aliases/{name}").status_code == 204
    assert http.delete(f"{model}/checkpoints/2").status_code == 204


def test_every_change_is_kept_and_pages_go_back_to_the_first(http: httpx.Client, model: str) -> None:
    for version in (1, 2, 3):
        moved(http, model, version)
    assert http.delete(f"{model}/aliases/prod", headers={"If-Match": '"2"'}).status_code == 412
    assert http.delete(f"{model}/aliases/prod", headers={"If-Match": '"3"'}).status_code == 204
    assert problem(http.get(f"{model}/aliases/prod")) == (404, "alias-not-found")
    assert moved(http, model, 1).json()["revision"] == 5
    seen, cursor = [], {}
    while cursor is not None:
        page = http.get(f"{model}/aliases/prod/history", params={"limit": 2, **cursor}).json()
        seen += [(each["revision"], each["version"], each["previous_version"]) for each in page["items"]]
        cursor = None if page["next"] is None else {"cursor": page["next"]}
    assert seen == [(5, 1, None), (4, None, 3), (3, 3, 2), (2, 2, 1), (1, 1, None)]
    assert problem(http.get(f"{model}/aliases/never/history")) == (404, "alias-not-found")


def test_the_aliases_of_a_model_are_listed_by_name(http: httpx.Client, model: str) -> None:
    assert http.get(f"{model}/aliases").json() == {"items": []}
    for name in ("prod", "_old", "Canary.1-b"):
        moved(http, model, 1, name)
    assert [each["alias"] for each in http.get(f"{model}/aliases").json()["items"]] == ["Canary.1-b", "_old", "prod"]
    assert http.get(f"{model}/checkpoints/1").json()["aliases"] == ["Canary.1-b", "_old", "prod"]


@pytest.mark.parametrize("name", ["latest", "best", "v12", "12", "-a", "a b", "a:b", "é", "a" * 129, "min:loss"])
def test_a_name_with_a_meaning_already_is_refused(http: httpx.Client, model: str, name: str) -> None:
    for answer in (
        http.put(f"{model}/aliases/{name}", json={"ref": 1}),
        http.get(f"{model}/aliases/{name}"),
        http.get(f"{model}/aliases/{name}/history"),
        http.post(f"{model}/aliases/{name}/rollback"),
    ):
        assert problem(answer) == (422, "bad-alias")
    assert http.get(f"{model}/aliases").json() == {"items": []}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"ref": "9"}, (404, "checkpoint-not-found")),
        ({"ref": "nothing"}, (404, "checkpoint-not-found")),
        ({"ref": "?"}, (422, "bad-ref")),
        ({"ref": 1, "note": "x" * 1001}, (422, "bad-text")),
        ({"ref": 1, "note": "\0"}, (422, "bad-text")),
        ({"ref": True}, (422, "invalid-value")),
        ({"version": 1}, (422, "invalid-value")),
        ({}, (422, "invalid-value")),
    ],
)
def test_a_move_to_nowhere_changes_nothing(
    http: httpx.Client, model: str, body: dict, expected: tuple[int, str]
) -> None:
    moved(http, model, 1)
    assert problem(http.put(f"{model}/aliases/prod", json=body)) == expected
    assert problem(http.put(f"{model}/aliases/new", json=body)) == expected
    assert [each["revision"] for each in http.get(f"{model}/aliases").json()["items"]] == [1]


def test_of_an_unknown_model_or_alias_it_says_what_there_is(http: httpx.Client, model: str) -> None:
    assert problem(http.get("/v1/models/no/such/aliases")) == (404, "model-not-found")
    assert problem(http.put("/v1/models/no/such/aliases/prod", json={"ref": 1})) == (404, "model-not-found")
    moved(http, model, 1, "staging")
    for answer in (
        http.get(f"{model}/aliases/prod"),
        http.delete(f"{model}/aliases/prod"),
        http.patch(f"{model}/aliases/prod", json={"protected": True}),
        http.post(f"{model}/aliases/prod/rollback"),
    ):
        assert problem(answer) == (404, "alias-not-found")
        assert "staging" in answer.json()["detail"]


@pytest.fixture
def guarded(fresh_server: StartServer) -> Iterator[tuple[httpx.Client, dict[str, dict[str, str]]]]:
    """A client, and the headers of a token of each scope."""
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    headers = {scope: bearer(make_token(catalog_url(server), scope, scope)) for scope in ("read", "write", "admin")}
    with server.client() as http:
        for _ in range(2):
            http.post("/v1/models/a/b/checkpoints", content=general(), headers=headers["write"]).raise_for_status()
        yield http, headers


def test_a_protected_alias_takes_an_admin(guarded: tuple[httpx.Client, dict[str, dict[str, str]]]) -> None:
    http, by = guarded
    prod = "/v1/models/a/b/aliases/prod"
    assert http.put(prod, json={"ref": 1}, headers=by["read"]).status_code == 403
    assert http.put(prod, json={"ref": 1}, headers=by["write"]).json()["moved_by"] == "write"
    assert http.patch(prod, json={"protected": True}, headers=by["write"]).status_code == 403
    protected = http.patch(prod, json={"protected": True}, headers=by["admin"]).json()
    assert (protected["protected"], protected["revision"], protected["version"]) == (True, 2, 1)
    for answer in (
        http.put(prod, json={"ref": 2}, headers=by["write"]),
        http.post(f"{prod}/rollback", headers=by["write"]),
        http.delete(prod, headers=by["write"]),
    ):
        assert problem(answer) == (403, "forbidden")
        assert "is protected" in answer.json()["detail"]
    moved = http.put(prod, json={"ref": 2}, headers=by["admin"]).json()
    assert (moved["version"], moved["protected"], moved["moved_by"]) == (2, True, "admin")
    assert http.post(f"{prod}/rollback", headers=by["admin"]).json()["version"] == 1
    assert http.patch(prod, json={"protected": False}, headers=by["admin"]).json()["protected"] is False
    assert http.delete(prod, headers=by["write"]).status_code == 204
    history = http.get(f"{prod}/history", headers=by["read"]).json()["items"]
    assert [(each["protected"], each["by"]) for each in history] == [
        (False, "write"), (False, "admin"), (True, "admin"), (True, "admin"), (True, "admin"), (False, "write"),
    ]  # fmt: skip
