"""Tokens over HTTP: made, listed and revoked by those who may do everything."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.values.token import parse_token
from tests.api.conftest import general, problem
from tests.conftest import StartServer
from tests.support.server import Server
from tests.support.tokens import SERVER_TOKEN, bearer, catalog_url, make_token, running_with_a_token
from tests.support.waiting import assert_soon


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_with_a_token(request, tmp_path_factory) as server:
        yield server


@pytest.fixture
def root(guarded: Server) -> Iterator[httpx.Client]:
    with guarded.client(headers=bearer(SERVER_TOKEN)) as http:
        yield http


@pytest.fixture
def name(model_name: str) -> str:
    """The beginning of the names of this test's tokens."""
    return model_name.rpartition("/")[2].replace("_", "-")[-50:].lstrip("-.")


def listed(http: httpx.Client, **params: object) -> dict[str, dict]:
    found: dict[str, dict] = {}
    cursor: dict[str, str] = {}
    while True:
        page = http.get("/v1/tokens", params={**params, **cursor}).json()
        found |= {item["name"]: item for item in page["items"]}
        if page["next"] is None:
            assert list(found) == sorted(found)
            return found
        cursor = {"cursor": page["next"]}


def test_a_token_is_made_shown_once_used_and_revoked(guarded: Server, root: httpx.Client, name: str) -> None:
    began = datetime.now(UTC)
    answer = root.post("/v1/tokens", json={"name": name, "scope": "write", "namespaces": ["vision"], "expires": "90d"})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    made = answer.json()
    text = made.pop("token")
    id_, secret = parse_token(text.encode())
    assert made == {
        "name": name,
        "id": id_,
        "scope": "write",
        "namespaces": ["vision"],
        "created_at": made["created_at"],
        "expires_at": made["expires_at"],
        "revoked_at": None,
        "last_used_at": None,
        "state": "good",
    }
    lifetime = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lifetime == timedelta(days=90)
    assert listed(root)[name] == made

    with guarded.client(headers=bearer(text)) as http:
        assert http.post("/v1/models/vision/x/checkpoints", content=general()).status_code == 201
        assert problem(http.get("/v1/models/audio/x")) == (403, "forbidden")
        assert_soon(lambda: listed(root)[name]["last_used_at"] is not None)
        assert datetime.fromisoformat(listed(root)[name]["last_used_at"]) >= began
        assert root.delete(f"/v1/tokens/{name}").status_code == 204
        assert_soon(lambda: http.get("/v1/models").status_code == 401)
    revoked = listed(root)[name]
    assert (revoked["state"], revoked["revoked_at"] is None) == ("revoked", False)
    assert root.delete(f"/v1/tokens/{id_}").status_code == 204, "again, and by its id"
    assert listed(root)[name]["revoked_at"] == revoked["revoked_at"]
    assert problem(root.post("/v1/tokens", json={"name": name, "scope": "read"})) == (409, "token-name-taken")

    everything = json.dumps(listed(root)) + root.get("/v1/events", params={"limit": 1000}).text + guarded.log
    assert secret.decode() not in everything
    assert SERVER_TOKEN not in everything
    told = root.get("/v1/events", params={"limit": 1000, "kind": ["token-made", "token-revoked"]}).json()["items"]
    events = [(event["kind"], event["by"], event["detail"]) for event in told if event["detail"]["token"] == name]
    assert events == [
        ("token-made", "STATEROOM_SERVER_TOKEN", {"token": name, "scope": "write", "namespace": "vision"}),
        ("token-revoked", "STATEROOM_SERVER_TOKEN", {"token": name}),
    ]


def test_a_token_of_several_namespaces_sees_those_and_no_other(guarded: Server, root: httpx.Client, name: str) -> None:
    spaces = [f"{name[-40:].lstrip('-.')}-{each}" for each in "abc"]
    for space in spaces:
        models = f"/v1/models/{space}/m/checkpoints"
        assert root.post(models, content=general(), params={"tag.from": space}).status_code == 201
    mine = {"name": name, "scope": "admin", "namespaces": [spaces[1], spaces[0], spaces[0]]}
    made = root.post("/v1/tokens", json=mine).json()
    assert made["namespaces"] == spaces[:2]
    with guarded.client(headers=bearer(made["token"])) as http:
        models = http.get("/v1/models").json()["items"]
        assert [model["model"] for model in models] == [f"{space}/m" for space in spaces[:2]]
        first = http.get("/v1/models", params={"limit": 1}).json()
        second = http.get("/v1/models", params={"limit": 1, "cursor": first["next"]}).json()
        assert [page["items"][0]["model"] for page in (first, second)] == [f"{space}/m" for space in spaces[:2]]
        assert problem(root.get("/v1/models", params={"cursor": first["next"]})) == (422, "bad-cursor")
        namespaces = http.get("/v1/namespaces").json()["items"]
        assert [each["namespace"] for each in namespaces] == spaces[:2]
        for space in spaces[:2]:
            assert http.get(f"/v1/models/{space}/m/checkpoints/1").status_code == 200
        refused = http.get(f"/v1/models/{spaces[2]}/m")
        assert problem(refused) == (403, "forbidden")
        assert refused.json()["detail"] == f"This token is valid only in the namespaces {spaces[0]}, {spaces[1]}."
        for method, path in (("GET", "/metrics"), ("GET", "/v1/tokens"), ("DELETE", f"/v1/tokens/{name}")):
            assert problem(http.request(method, path)) == (403, "forbidden")
        assert problem(http.post("/v1/tokens", json={"name": "x", "scope": "read"})) == (403, "forbidden")

        parent = {"parent": f"{spaces[1]}/m@1"}
        child = http.post(f"/v1/models/{spaces[0]}/m/checkpoints", content=general(4), params=parent).json()["version"]
        far = {"parent": f"{spaces[2]}/m@1"}
        other = http.post(f"/v1/models/{spaces[1]}/m/checkpoints", content=general(5), params=far).json()["version"]
        lineages = [
            http.get(f"/v1/models/{space}/m/checkpoints/{version}/lineage").json()["ancestors"]
            for space, version in ((spaces[0], child), (spaces[1], other))
        ]
        assert [[each["state"] for each in found] for found in lineages] == [["live"], ["unknown"]]
        unseen = {"parent": f"{spaces[1]}/m@99"}
        answer = http.post(f"/v1/models/{spaces[0]}/m/checkpoints", content=general(6), params=unseen)
        assert problem(answer) == (422, "unknown-parent")
        diff = f"/v1/models/{spaces[0]}/m/checkpoints/1/diff/"
        assert http.get(f"{diff}{spaces[1]}%2Fm@1").status_code == 200
        assert problem(http.get(f"{diff}{spaces[2]}%2Fm@1")) == (404, "model-not-found")
    detail = {"token": name, "scope": "admin", "namespaces": spaces[:2]}
    made_events = root.get("/v1/events", params={"limit": 1000, "kind": "token-made"}).json()["items"]
    assert detail in [event["detail"] for event in made_events]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "a b"}, "bad-token-name"),
        ({"name": ""}, "bad-token-name"),
        ({"name": "0123456789abcdef"}, "bad-token-name"),
        ({"name": "a\0"}, "bad-token-name"),
        ({"scope": "all"}, "invalid-value"),
        ({"scope": None}, "invalid-value"),
        ({"namespaces": []}, "invalid-value"),
        ({"namespaces": "vision"}, "invalid-value"),
        ({"namespaces": [f"n{i}" for i in range(101)]}, "invalid-value"),
        ({"namespaces": ["a/b"]}, "bad-model-name"),
        ({"namespaces": ["vision", ""]}, "bad-model-name"),
        ({"expires": "soon"}, "bad-expiry"),
        ({"expires": "2020-01-01"}, "bad-expiry"),
        ({"expires": "0001-01-01T00:00+14:00"}, "bad-expiry"),
        ({"expires": "37000d"}, "bad-expiry"),
        ({"expires": 90}, "invalid-value"),
        ({"secret": "mine"}, "invalid-value"),
    ],
)
def test_what_is_no_token_is_refused_and_makes_none(root: httpx.Client, name: str, body: dict, code: str) -> None:
    before = listed(root)
    assert problem(root.post("/v1/tokens", json={"name": name, "scope": "read", **body})) == (422, code)
    assert listed(root) == before


def test_a_token_that_is_not_there_is_404(root: httpx.Client) -> None:
    for missing in ("nobody", "0123456789abcdef", "a%20b", "%00", "é" * 200):
        assert problem(root.delete(f"/v1/tokens/{missing}")) == (404, "token-not-found")


def test_the_list_comes_in_pages(guarded: Server, root: httpx.Client, name: str) -> None:
    url = catalog_url(guarded)
    for number in range(3):
        make_token(url, f"{name}-{number}", "read")
    assert list(listed(root, limit=1)) == list(listed(root, limit=1000))
    for params in ({"limit": 0}, {"limit": 1001}, {"cursor": "x"}):
        assert root.get("/v1/tokens", params=params).status_code == 422


def test_no_scope_but_admin_everywhere_is_enough(guarded: Server, root: httpx.Client, name: str) -> None:
    url = catalog_url(guarded)
    given = [("read", None), ("write", None), ("read", "vision"), ("admin", "vision")]
    for number, (scope, namespace) in enumerate(given):
        with guarded.client(headers=bearer(make_token(url, f"{name}-{number}", scope, namespace))) as http:
            for method, path in (("GET", ""), ("POST", ""), ("DELETE", f"/{name}-0")):
                answer = http.request(method, f"/v1/tokens{path}", json={"name": f"{name}-new", "scope": "read"})
                assert problem(answer) == (403, "forbidden"), (scope, namespace, method)
    assert f"{name}-new" not in listed(root)
    with guarded.client(headers=bearer(make_token(url, f"{name}-root", "admin"))) as http:
        assert http.post("/v1/tokens", json={"name": f"{name}-new", "scope": "read"}).status_code == 201


def test_a_server_without_tokens_gets_its_first_one_on_its_own_machine(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    with server.client() as http:
        assert http.get("/v1/tokens").json() == {"items": [], "next": None}
        refused = http.post("/v1/tokens", json={"name": "a", "scope": "admin"})
        assert problem(refused) == (403, "forbidden")
        assert "stateroom-server token add" in refused.json()["detail"]
        assert problem(http.delete("/v1/tokens/a")) == (404, "token-not-found")
        assert http.get("/v1/models").status_code == 200
        assert http.get("/v1/events").json()["items"] == []
