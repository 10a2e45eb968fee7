"""Merges that cannot be made: nothing is stored, and nothing is left of them."""

import io
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from tests.api.conftest import load, problem, saved
from tests.conftest import StartServer
from tests.support.raw_http import connected, post
from tests.support.server import Server
from tests.support.tokens import bearer, catalog_url, make_token
from tests.support.waiting import assert_soon

MERGE = "/v1/models/a/b/merge"
CHECKPOINTS = "/v1/models/a/b/checkpoints"


@pytest.fixture
def server(fresh_server: StartServer) -> Server:
    return fresh_server(env={"STATEROOM_DURABLE": "off", "STATEROOM_SWEEP_INTERVAL": "0"})


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def put(http: httpx.Client, tensor: torch.Tensor, model: str = "a/b") -> None:
    http.post(f"/v1/models/{model}/checkpoints", content=saved({"w": tensor})).raise_for_status()


def packs(server: Server) -> list[Path]:
    return sorted(path for path in (server.data_dir / "packs").rglob("*") if path.is_file())


def assert_nothing_is_left(server: Server, http: httpx.Client, before: list[Path], count: int) -> None:
    assert_soon(lambda: list((server.data_dir / "spool").iterdir()) == [])
    assert_soon(lambda: packs(server) == before)
    assert len(http.get(CHECKPOINTS).json()["items"]) == count


def test_a_damaged_source_is_told_and_nothing_is_stored(server: Server, http: httpx.Client) -> None:
    one, two = torch.randn(2000, 2000), torch.randn(2000, 2000)
    put(http, one)
    put(http, two)
    needle = two.numpy().tobytes()[1_000_000:1_000_100]
    (damaged,) = (path for path in packs(server) if needle in path.read_bytes())
    data = bytearray(damaged.read_bytes())
    data[data.index(needle)] ^= 1
    damaged.chmod(0o600)
    with damaged.open("r+b") as file:
        file.write(data)
    before = packs(server)
    assert problem(http.post(MERGE, json={"of": ["1", "2"]})) == (500, "damaged-blob")
    assert problem(http.post(MERGE, json={"of": ["1", "2"], "method": "slerp"})) == (500, "damaged-blob")
    assert_nothing_is_left(server, http, before, 2)
    assert http.post(MERGE, json={"of": ["1"]}).status_code == 201


def test_a_client_that_goes_away_ends_its_merge(server: Server, http: httpx.Client) -> None:
    for number in range(2):  # not parallel, so both are read twice
        large = torch.ones(40_000_000)
        large[:: 3 + number] = 0
        put(http, large)
    before = packs(server)
    body = json.dumps({"of": ["1", "2"], "method": "slerp"})
    connection = connected(server)
    connection.sendall(post(MERGE, f"Content-Length: {len(body)}", body=body.encode()))
    assert_soon(lambda: list((server.data_dir / "spool").iterdir()) != [])
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
    connection.close()
    assert_nothing_is_left(server, http, before, 2)
    assert_soon(lambda: 'stateroom_uploads_total{outcome="cancelled"} 1.0' in http.get("/metrics").text)


def test_a_source_that_is_purged_meanwhile_is_missed_or_was_read(server: Server, http: httpx.Client) -> None:
    ones = [torch.randn(10_000_000) for _ in range(2)]
    for one in ones:
        put(http, one)
    body = json.dumps({"of": ["1", "2"]})
    with connected(server) as connection:
        connection.sendall(post(MERGE, f"Content-Length: {len(body)}", body=body.encode()))
        assert_soon(lambda: list((server.data_dir / "spool").iterdir()) != [])
        assert http.delete(f"{CHECKPOINTS}/2", params={"purge": "true"}).status_code in {200, 204}
        for pack in packs(server):  # what a sweep without any grace would do
            pack.unlink()
        answer = connection.makefile("rb").readline()
    if b" 201 " in answer:
        made = load(http.get(f"{CHECKPOINTS}/3/state_dict").content)
        assert torch.equal(made["w"], (ones[0] + ones[1]) / 2)
    else:
        assert b" 404 " in answer
        assert_soon(lambda: list((server.data_dir / "spool").iterdir()) == [])


def test_a_token_merges_only_what_it_may_read(server: Server) -> None:
    database = catalog_url(server)
    everywhere, ours = (
        bearer(make_token(database, name, "write", namespace)) for name, namespace in (("all", None), ("a", "a"))
    )
    with server.client(headers=everywhere) as http:
        put(http, torch.ones(3))
        put(http, torch.zeros(3), "theirs/secret")
        refused = http.post(MERGE, headers=ours, json={"of": ["1", "theirs/secret@1"]})
        missing = http.post(MERGE, headers=ours, json={"of": ["1", "theirs/nothing@1"]})
        assert problem(refused) == problem(missing) == (404, "model-not-found")
        made = http.post(MERGE, json={"of": ["1", "theirs/secret@1"]}).json()
        assert made["merge"]["of"][1] == {"checkpoint": "theirs/secret@1", "weight": 0.5}
        ancestors = http.get(f"{CHECKPOINTS}/2/lineage", headers=ours).json()["ancestors"]
        assert [(each["model"], each["state"], each["weight"]) for each in ancestors] == [
            ("a/b", "live", 0.5),
            ("theirs/secret", "unknown", 0.5),
        ]


def test_quotas_and_limits_hold_for_merges(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off", "STATEROOM_MAX_UPLOAD_BYTES": "1000000"})
    with server.client() as http:
        file = io.BytesIO()
        torch.save({"w": torch.ones(200_000, dtype=torch.bfloat16)}, file)
        for _ in range(2):
            http.post(CHECKPOINTS, content=file.getvalue()).raise_for_status()
        wide = {f"w{number}": torch.ones(1000) * number for number in range(100)}
        http.post("/v1/models/a/wide/checkpoints", content=saved(wide)).raise_for_status()
        before = packs(server)
        http.put("/v1/namespaces/a", json={"quota_checkpoints": 3}).raise_for_status()
        assert problem(http.post(MERGE, json={"of": ["1", "2"]})) == (507, "quota-exceeded")
        http.put("/v1/namespaces/a", json={"quota_checkpoints": None, "quota_bytes": 900_000}).raise_for_status()
        assert problem(http.post("/v1/models/a/wide/merge", json={"of": ["1"]})) == (507, "quota-exceeded")
        assert_nothing_is_left(server, http, before, 2)
