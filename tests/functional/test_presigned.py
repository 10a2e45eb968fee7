"""Downloads whose large storages come from the object store itself, by URLs that the server has signed."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import httpx
import pytest
import torch

from stateroom import Client
from tests.conftest import StartServer
from tests.differential.equality import equal
from tests.functional.on_s3 import noise
from tests.support.s3 import S3
from tests.support.server import Server
from tests.support.store_proxy import spoiling
from tests.support.waiting import LONG_ENOUGH, assert_soon

MIB = 1024 * 1024
VERIFIES = {"Stateroom-Verifies": "client"}


@cache
def weights() -> dict[str, torch.Tensor]:
    return {"large": noise(40), "other": noise(3), "small": noise(0.01)}


@cache
def obj() -> dict[str, object]:
    return {"epoch": 1, "model_state_dict": weights()}


@pytest.fixture
def presigning(fresh_server: StartServer, s3: S3) -> Callable[..., Server]:
    def start(**env: str) -> Server:
        return fresh_server("--store-url", s3.new_url(), env={**s3.environment, "STATEROOM_PRESIGN": "on", **env})

    return start


def sent(server: Server) -> int:
    """Return how many bytes of files the server has sent."""
    return sum(each["bytes_out"] for each in server.requests if not each["route"].endswith("/index"))


@pytest.mark.parametrize("in_parts", [True, False], ids=["in-parts", "in-one-piece"])
def test_large_storages_pass_the_server_by(presigning: Callable[..., Server], tmp_path: Path, in_parts: bool) -> None:
    server = presigning()
    with Client(server.base_url, progress=False) as client:
        model = client.model("a/b")
        if in_parts:
            model.save(obj())
        else:
            torch.save(obj(), tmp_path / "obj.pt")
            data = (tmp_path / "obj.pt").read_bytes()
            with server.client() as http:
                assert http.post("/v1/models/a/b/checkpoints", content=data).status_code == 201
            assert model.download("latest", tmp_path / "back.pt").read_bytes() == data
        assert equal(model.load("latest"), obj())
        assert equal(dict(model.state_dict("latest")), weights())
        net = torch.nn.Module()
        for name, tensor in weights().items():
            net.register_buffer(name, torch.empty_like(tensor))
        model.load_into(net, "latest")
        assert equal(dict(net.state_dict()), weights())
    assert sent(server) < MIB


def test_what_the_store_spoils_comes_from_the_server(presigning: Callable[..., Server], s3: S3) -> None:
    with spoiling(s3.endpoint) as (endpoint, faults):
        server = presigning(STATEROOM_STORE_ENDPOINT=endpoint)
        with Client(server.base_url, progress=False, connections=2) as client:
            model = client.model("a/b")
            model.save(obj())
            faults.every = 3
            while not {"corrupt", "short", "truncate", "reset", "error"} <= set(faults.spoiled):
                assert equal(model.load("latest"), obj())
    assert_soon(lambda: sent(server) > MIB)


def test_only_those_who_verify_get_urls_and_only_from_a_server_that_is_told_to(
    presigning: Callable[..., Server],
) -> None:
    path = "/v1/models/a/b/checkpoints/1/file/index"
    for presign in ("on", "off"):
        server = presigning(STATEROOM_PRESIGN=presign)
        with Client(server.base_url, progress=False) as client:
            client.model("a/b").save(obj())
        with server.client() as http:
            assert http.get(path).json()["objects"] is None
            answer = http.get(path, headers=VERIFIES)
        found = answer.json()
        if presign == "off":
            assert found["objects"] is None
            continue
        assert answer.headers["Cache-Control"] == "no-store"
        by_size = sorted(found["storages"], key=lambda each: each["end"] - each["start"])
        assert "at" not in by_size[0]
        parts = b""
        for number, start, end in by_size[-1]["at"]:
            fields = {"Range": f"bytes={start}-{end - 1}"}
            parts += httpx.get(found["objects"][number], headers=fields, trust_env=False, timeout=LONG_ENOUGH).content
        assert parts == weights()["large"].numpy().tobytes()
