"""Events over HTTP: pages, long-polls and streams."""

import asyncio
import json
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import general, problem
from tests.conftest import StartServer
from tests.support.measure import long, measure
from tests.support.server import Server
from tests.support.tokens import bearer, catalog_url, make_token, revoke_token
from tests.support.waiting import assert_soon

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def model(http: httpx.Client, model_name: str) -> str:
    """The URL of a model with a checkpoint and an alias."""
    url = f"/v1/models/{model_name}"
    http.post(f"{url}/checkpoints", content=general()).raise_for_status()
    http.put(f"{url}/aliases/prod", json={"ref": 1}).raise_for_status()
    return url


def is_waiting(http: httpx.Client, count: int = 1) -> bool:
    return f"stateroom_waiting_clients {count}.0" in http.get("/metrics").text


@contextmanager
def stream(http: httpx.Client, url: str, **headers: str) -> Iterator[Iterator[dict | int]]:
    """The events of a stream, and the ids without an event."""
    with http.stream("GET", url, headers={**STREAM, **headers}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield _read(answer)


def _read(answer: httpx.Response) -> Iterator[dict | int]:
    id_ = None
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            id_ = int(value)
        elif name == "data":
            event = json.loads(value)
            assert event["id"] == id_
            id_ = None
            yield event
        elif not line and id_ is not None:
            yield id_


def kinds(events: list[dict]) -> list[str]:
    return [event["kind"] for event in events]


def test_a_page_has_the_events_of_a_model_and_says_where_to_go_on(http: httpx.Client, model: str, model_name: str):
    answer = http.get(f"{model}/events")
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    made, moved = body["items"]
    assert moved.pop("at").endswith("Z")
    assert moved.pop("id") > made["id"]
    assert moved == {
        "kind": "alias-moved",
        "model": model_name,
        "version": 1,
        "alias": "prod",
        "by": None,
        "detail": {"previous_version": None},
    }
    last = body["last"]
    assert http.get(f"{model}/events", params={"after": made["id"]}).json()["items"][0]["kind"] == "alias-moved"
    assert http.get(f"{model}/events", params={"after": last}).json()["items"] == []
    assert http.get(f"{model}/events", params={"after": "newest"}).json()["items"] == []
    only = http.get(f"{model}/events", params={"kind": ["alias-moved", "alias-removed"]}).json()
    assert kinds(only["items"]) == ["alias-moved"]
    assert http.get(f"{model}/events?limit=1").json()["last"] == made["id"]
    in_namespace = http.get("/v1/namespaces/tests/events", params={"after": made["id"] - 1}).json()["items"]
    assert {event["model"] for event in in_namespace} >= {model_name}
    everywhere = http.get("/v1/events", params={"after": made["id"] - 1, "limit": 1}).json()["items"]
    assert [event["address"] for event in everywhere] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        ("{model}/events", {"after": 10**15}, (422, "future-event")),
        ("{model}/events", {"after": "-1"}, (422, "bad-after")),
        ("{model}/events", {"after": "9" * 40}, (422, "bad-after")),
        ("{model}/events", {"wait": 61}, (422, "invalid-value")),
        ("{model}/events", {"limit": 0}, (422, "invalid-value")),
        ("{model}/events", {"kind": "party"}, (422, "invalid-value")),
        ("{model}-not/events", {"wait": 10}, (404, "model-not-found")),
        ("/v1/namespaces/-/events", {}, (422, "bad-model-name")),
    ],
)
def test_a_mistake_is_a_problem(http: httpx.Client, model: str, path: str, params: dict, expected: tuple) -> None:
    for headers in ({}, STREAM):
        assert problem(http.get(path.format(model=model), params=params, headers=headers)) == expected


def test_those_who_wait_hear_of_a_change_at_whichever_worker_it_is_made(fresh_server: StartServer) -> None:
    server = fresh_server("--workers", "3")
    model = "/v1/models/vision/net"
    with server.client() as http, ThreadPoolExecutor(8) as threads:
        http.post(f"{model}/checkpoints", content=general()).raise_for_status()
        last = http.get(f"{model}/events").json()["last"]
        waiting = [
            threads.submit(lambda path: httpx.get(server.base_url + path, timeout=120, verify=False).json(), path)
            for path in (f"{model}/events?wait=60&after={last}", f"/v1/namespaces/vision/events?wait=60&after={last}")
            for _ in range(4)
        ]
        assert_soon(lambda: is_waiting(http, 8))
        http.put("/v1/models/vision/other/checkpoints", content=general()).raise_for_status()
        heard = [call.result()["items"] for call in waiting[4:]]
        assert [[event["model"] for event in events] for events in heard] == [["vision/other"]] * 4
        assert_soon(lambda: is_waiting(http, 4))
        http.put(f"{model}/aliases/prod", json={"ref": 1}).raise_for_status()
        heard = [call.result()["items"] for call in waiting[:4]]
        assert [kinds(events) for events in heard] == [["alias-moved"]] * 4
        assert_soon(lambda: is_waiting(http, 0))
        counted = 'stateroom_events_total{kind="checkpoint-created"} 2.0'
        assert_soon(lambda: counted in http.get("/metrics").text)


def test_a_stream_goes_on_from_the_last_event_id_and_ends_with_its_token(fresh_server: StartServer) -> None:
    server = fresh_server()
    url, model = catalog_url(server), "/v1/models/vision/net"
    admin, reader = (make_token(url, name, name, "vision" if name == "read" else None) for name in ("admin", "read"))
    with server.client(headers=bearer(admin)) as http, server.client(headers=bearer(reader)) as reading:
        http.post(f"{model}/checkpoints", content=general()).raise_for_status()
        assert problem(reading.get("/v1/events")) == (403, "forbidden")
        assert problem(reading.get("/v1/namespaces/other/events")) == (403, "forbidden")
        with stream(reading, f"{model}/events") as events:
            first = next(events)
            assert (first["kind"], first["by"]) == ("checkpoint-created", "admin")
            http.post("/v1/models/other/net/checkpoints", content=general()).raise_for_status()
            http.put(f"{model}/aliases/prod", json={"ref": 1}).raise_for_status()
            moved = next(each for each in events if not isinstance(each, int))
            assert (moved["kind"], moved["alias"]) == ("alias-moved", "prod")
        with stream(reading, f"{model}/events", **{"Last-Event-ID": str(first["id"])}) as events:
            assert next(events) == moved
            revoke_token(url, "read")
            http.delete(f"{model}/aliases/prod").raise_for_status()
            for _ in events:  # a copy of the tokens is used for a moment
                http.put(f"{model}/aliases/prod", json={"ref": 1}).raise_for_status()
                http.delete(f"{model}/aliases/prod").raise_for_status()
            assert problem(reading.get(f"{model}/events")) == (401, "unauthorized")
        everything = http.get("/v1/events").json()["items"]
        assert kinds(everything)[:2] == ["token-made", "token-made"]
        assert {event["kind"] for event in everything if event["by"] is None} == {"token-made", "token-revoked"}


def test_a_server_that_stops_ends_all_waits_at_once(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DRAIN_SECONDS": "600"})
    with server.client() as http, ThreadPoolExecutor(2) as threads:
        http.post("/v1/models/vision/net/checkpoints", content=general()).raise_for_status()
        path = "/v1/models/vision/net/events?wait=60&after=1"
        waiting = threads.submit(httpx.get, server.base_url + path, timeout=120)
        with stream(http, "/v1/events?after=newest") as events, server.client() as other:
            assert next(events) == 1
            assert_soon(lambda: is_waiting(other, 2))
            assert server.stop() == 0
            assert [each for each in events if not isinstance(each, int)] == []
        assert waiting.result().json() == {"items": [], "last": 1}


def test_a_checkpoint_is_waited_for_until_it_changes(server: Server, http: httpx.Client, model: str) -> None:
    def waited(ref: str, wait: int = 60) -> httpx.Response:
        etag = http.get(f"{model}/checkpoints/{ref}").headers["ETag"]
        path = f"{server.base_url}{model}/checkpoints/{ref}"
        return httpx.get(path, params={"wait": wait}, headers={"If-None-Match": etag}, timeout=120, verify=False)

    changes = {
        "latest": lambda: http.post(f"{model}/checkpoints", content=general()),
        "prod": lambda: http.put(f"{model}/aliases/prod", json={"ref": 2}),
        "1": lambda: http.patch(f"{model}/checkpoints/1", json={"tags": {"seen": "yes"}}),
        "2": lambda: http.delete(f"{model}/aliases/prod"),
    }
    with ThreadPoolExecutor(4) as threads:
        for ref, change in changes.items():
            waiting = [threads.submit(waited, ref) for _ in range(4)]
            assert_soon(lambda: is_waiting(http, 4))
            http.patch(model, json={"best": f"min:{ref}"}).raise_for_status()  # news, but not of this checkpoint
            change().raise_for_status()
            assert [call.result().status_code for call in waiting] == [200] * 4
        waiting = threads.submit(waited, "2")
        assert_soon(lambda: is_waiting(http))
        http.delete(f"{model}/checkpoints/2").raise_for_status()
        assert problem(waiting.result()) == (404, "checkpoint-not-found")
    assert waited("latest", 1).status_code == 304
    at_once = http.get(f"{model}/checkpoints/latest?wait=60")
    assert (at_once.status_code, at_once.headers["Content-Location"]) == (200, f"{model}/checkpoints/1")
    assert problem(http.get(f"{model}/checkpoints/latest?wait=61")) == (422, "invalid-value")


MANY = measure(300, 1000)


@long
def test_very_many_clients_that_wait_take_no_threads(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    path = "/v1/models/vision/net/events?wait=60&after="

    async def wait_all() -> list[bytes]:
        pairs = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MANY)]
        for _, writer in pairs:
            writer.write(f"GET {path}1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        await asyncio.to_thread(assert_soon, lambda: is_waiting(http, MANY))
        assert threads(server) < before + 100  # some looked each client's model up, and are idle now
        await asyncio.to_thread(http.put, "/v1/models/vision/net/aliases/prod", json={"ref": 1})
        answers = [await reader.read() for reader, _ in pairs]
        for _, writer in pairs:
            writer.close()
        return answers

    with server.client() as http:
        http.post("/v1/models/vision/net/checkpoints", content=general()).raise_for_status()
        assert is_waiting(http, 0)
        before = threads(server)
        answers = asyncio.run(wait_all())
    assert [b"alias-moved" in answer for answer in answers] == [True] * MANY


def threads(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


def test_a_head_of_a_stream_ends(server: Server, http: httpx.Client, model: str) -> None:
    assert http.head(f"{model}/events", headers=STREAM).status_code == 200
