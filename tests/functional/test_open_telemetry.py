"""Traces, as a receiver of OTLP sees them."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.process.open_telemetry import MOST_STEPS, is_wanted
from tests.api.conftest import general
from tests.conftest import StartServer
from tests.support.otlp import Collector, Received, collector
from tests.support.server import PYTHON_M_APP, ROOT, Server
from tests.support.tokens import bearer
from tests.support.waiting import assert_soon

MODEL = "/v1/models/vision/net"
TOKEN = f"server-token-{secrets.token_hex(16)}"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "300"}
"""Spans wait for 50 milliseconds for others, and the server for five minutes for a receiver on a busy machine."""


@pytest.fixture
def received() -> Iterator[Collector]:
    with collector() as running:
        yield running


def traced(fresh_server: StartServer, received: Collector, *args: str, **env: str) -> Server:
    on = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "FASTAPI_OTEL_AUTO_CONFIGURE": "true", **SOON}
    return fresh_server(*args, env={"STATEROOM_DURABLE": "off", "STATEROOM_SERVER_TOKEN": TOKEN, **on, **env})


def request_span(received: Collector, request_id: str) -> Received | None:
    return next((span for span in received.spans if span.facts.get("stateroom.request_id") == request_id), None)


def wait_for(received: Collector, request_id: str) -> Received:
    assert_soon(lambda: request_span(received, request_id) is not None)
    span = request_span(received, request_id)
    assert span is not None
    return span


def test_a_request_is_a_span_with_its_steps_and_without_any_secret(
    fresh_server: StartServer, received: Collector
) -> None:
    file = general()
    server = traced(fresh_server, received)
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    headers = {**bearer(TOKEN), "traceparent": f"00-{trace}-{parent}-01", "X-Request-Id": "up"}
    with server.client(headers=bearer(TOKEN)) as http:
        assert http.post(f"{MODEL}/checkpoints", content=file, headers=headers).status_code == 201
        download = http.get(f"{MODEL}/checkpoints/1/state_dict", headers={"X-Request-Id": "down"})
        made = http.post(
            "/v1/tokens", json={"name": "reader", "scope": "read"}, headers={"X-Request-Id": "made"}
        ).json()
        link = http.post(f"{MODEL}/checkpoints/1/links/file", headers={"X-Request-Id": "linked"}).json()["url"]
        assert http.get(link, headers={"Authorization": "", "X-Request-Id": "by-link"}).status_code == 200
        wrong = bearer(made["token"] + "0")
        assert http.get(f"/x/{made['token']}", headers={**wrong, "X-Request-Id": "nowhere"}).status_code == 404
        assert http.get(MODEL, headers={**wrong, "X-Request-Id": "refused"}).status_code == 401
        assert http.get("/readyz", headers={"X-Request-Id": "ready"}).status_code == 200
        upload = wait_for(received, "up")
        assert (upload.trace, upload.parent, upload.kind, upload.failed) == (trace, parent, 2, False)
        assert upload.name == "POST /v1/models/{namespace}/{name}/checkpoints"
        assert upload.facts == {
            "http.request.method": "POST",
            "http.route": "/v1/models/{namespace}/{name}/checkpoints",
            "http.response.status_code": 201,
            "http.request.body.size": len(file),
            "http.response.body.size": upload.facts["http.response.body.size"],
            "stateroom.request_id": "up",
            "stateroom.namespace": "vision",
            "stateroom.model": "vision/net",
        }
        assert upload.resource["service.name"] == "stateroom-server"
        down = wait_for(received, "down")
        assert (down.facts["http.response.body.size"], down.parent) == (len(download.content), "")
        for request_id in ("made", "linked", "by-link", "nowhere", "refused"):
            wait_for(received, request_id)
    steps = {name: below(received, span) for name, span in (("up", upload), ("down", down))}
    assert steps["up"] >= {"receive", "index", "digest", "commit", "catalog.write", "store.write"}
    assert steps["down"] >= {"plan", "catalog.read", "store.read"}
    assert request_span(received, "ready") is None

    link_secret = link.rpartition("signature=")[2]
    everything = b"".join(received.bodies)
    for secret in (TOKEN, made["token"], made["token"].split("_")[2], link_secret):
        assert secret.encode() not in everything
    (logged,) = (line for line in server.requests if line["request_id"] == "up")
    assert logged["trace"] == trace
    assert set(received.paths) == {"/v1/traces"}


def below(received: Collector, root: Received) -> set[str]:
    """The names of the steps of a request, each of which leads to it."""
    spans = {span.id: span for span in received.spans if span.trace == root.trace}

    def leads_to_root(span: Received) -> bool:
        return span.parent == root.id or (span.parent in spans and leads_to_root(spans[span.parent]))

    return {span.name for span in spans.values() if leads_to_root(span)}


def test_each_worker_sends_its_own_and_what_is_left_at_the_end(fresh_server: StartServer, received: Collector) -> None:
    late = {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_SERVICE_NAME": "checkpoints"}
    server = traced(fresh_server, received, "--workers", "2", **late)
    seen: set[int] = set()

    def both_have_answered() -> bool:
        with server.client(headers=bearer(TOKEN)) as http:  # a connection goes to either worker
            assert http.get("/v1/models").status_code == 200
        seen.update(line["pid"] for line in server.requests)
        return len(seen) == 2

    assert_soon(both_have_answered)
    assert server.stop() == 0
    requests = [span for span in received.spans if span.name == "GET /v1/models"]
    assert {span.resource["service.name"] for span in requests} == {"checkpoints"}
    assert len(requests) == sum(line["path"] == "/v1/models" for line in server.requests)


def test_a_long_request_has_a_bounded_number_of_steps(received: Collector) -> None:

    program = """
from app.process.open_telemetry import MOST_STEPS, opened_tracer
from app.values.tracing import step, trace_with
with opened_tracer() as tracer:
    with tracer.request("GET", []) as trace:
        trace_with(trace)
        for _ in range(MOST_STEPS + 50):
            with step("store.read"):
                pass
        trace.describe("GET /x", {"stateroom.request_id": "long"}, failed=False)
    with step("late"):
        pass
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "PATH": "", **SOON},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    root = wait_for(received, "long")
    assert root.facts["stateroom.steps_left_out"] == 50
    assert sorted({span.name for span in received.spans}) == ["GET /x", "store.read"]
    assert len(received.spans) == 1 + MOST_STEPS


@pytest.mark.parametrize(
    ("env", "on", "warned"),
    [
        ({}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False, False),
        ({"OTEL_SERVICE_NAME": "checkpoints"}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, True),
    ],
)
def test_the_variables_of_opentelemetry_switch_it(
    env: dict[str, str], on: bool, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_wanted(env) is on
    assert bool(caplog.records) is warned


NO_OPENTELEMETRY = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto")):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9"], ids=["off", "on"])
def test_a_server_needs_no_opentelemetry_and_names_the_extra_where_it_is_asked_for_traces(
    fresh_server: StartServer, tmp_path: Path, endpoint: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_OPENTELEMETRY)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "PYTHONPATH": f"{tmp_path}:{ROOT}", "STATEROOM_DURABLE": "off"}
    server = fresh_server(env=env, command=PYTHON_M_APP)
    with server.client() as http:
        assert http.get("/v1/models").status_code == 200
    assert server.stop() == 0
    warned = [line["message"] for line in server.lines if line["logger"] == "stateroom.tracing"]
    assert ["pip install 'stateroom-server[otel]'" in text for text in warned] == [True] * bool(endpoint)


def test_a_collector_that_is_away_delays_no_request_and_the_end_for_seconds_only(fresh_server: StartServer) -> None:
    """Whatever time it has to answer."""
    server = fresh_server(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **SOON})
    with server.client() as http:
        for _ in range(20):
            assert http.get("/v1/models").status_code == 200
    assert server.stop() == 0
