"""Versions and metrics that operators look at, on a real server."""

import os
import re

from tests.api.conftest import general
from tests.conftest import StartServer
from tests.support.commands import run


def figures(text: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_the_version_is_the_same_wherever_a_server_says_it(fresh_server: StartServer) -> None:
    server = fresh_server()
    said = run("--version").stdout.split()[1]
    with server.client() as http:
        assert http.get("/healthz").json() == {"status": "ok", "version": said, "build": None}
        assert f'stateroom_build_info{{build="",version="{said}"}} 1.0' in http.get("/metrics").text
        assert http.get("/openapi.json").json()["info"]["version"] == said


def test_each_namespace_has_its_bytes_and_its_checkpoints(fresh_server: StartServer) -> None:
    server = fresh_server()
    with server.client() as http:
        for model in ("vision/a", "vision/b", "text/a"):
            http.post(f"/v1/models/{model}/checkpoints", content=general(size=8)).raise_for_status()
        found = figures(http.get("/metrics").text)
        assert found['stateroom_namespace_checkpoints{namespace="vision"}'] == 2
        for namespace in ("vision", "text"):
            stored = http.get(f"/v1/namespaces/{namespace}").json()["stored_bytes"]
            assert found[f'stateroom_namespace_bytes{{namespace="{namespace}"}}'] == stored > 0


def test_every_worker_has_its_memory_and_its_processor_time(fresh_server: StartServer) -> None:
    server = fresh_server("--workers", "2")
    with server.client() as http:
        text = http.get("/metrics").text
    found = figures(text)
    pids = [int(found[f'stateroom_worker_pid{{worker="{number}"}}']) for number in (0, 1)]
    assert len({*pids, server.pid, os.getpid()}) == 4
    for number in (0, 1):
        assert found[f'process_resident_memory_bytes{{worker="{number}"}}'] > 10_000_000
        assert found[f'process_cpu_seconds_total{{worker="{number}"}}'] > 0
    assert len(set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))) == len(
        re.findall(r"^# TYPE ", text, re.MULTILINE)
    )


def test_a_server_alone_is_worker_0(fresh_server: StartServer) -> None:
    server = fresh_server()
    with server.client() as http:
        found = figures(http.get("/metrics").text)
    assert found['stateroom_worker_pid{worker="0"}'] == server.pid
    assert found['process_open_fds{worker="0"}'] > 3
