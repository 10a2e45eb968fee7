"""Two servers on one database and one store, behind a balancer that sends each request to either of them."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stateroom import Client
from tests.differential.equality import equal
from tests.support.commands import run
from tests.support.measure import long, some
from tests.support.nginx import balanced, nginx_program
from tests.support.postgres import Postgres
from tests.support.server import Server, start_server
from tests.support.waiting import assert_soon

MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(nginx_program() is None, reason="no nginx at hand: apt install nginx-light")


@pytest.fixture(scope="module")
def servers(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """For all tests here; one that kills one of them starts it again."""
    folder = tmp_path_factory.mktemp("balanced")
    shared = ("--database-url", postgres.database(), "--store-url", f"file://{folder / 'store'}")
    env = {"STATEROOM_DURABLE": "off"}
    running = [start_server(folder / name / "data", *shared, env=env) for name in ("a", "b")]
    yield running
    for server in running:
        server.kill()


def training(epoch: int, mebibytes: int) -> dict[str, Any]:
    noise = torch.frombuffer(bytearray(os.urandom(mebibytes * MIB)), dtype=torch.uint8)
    weights = {"backbone": noise[: len(noise) // 2].clone(), "head": noise[len(noise) // 2 :].clone()}
    return {"epoch": epoch, "model_state_dict": weights}


def parts(server: Server) -> int:
    """How many parts the server has received."""
    return sum("/blocks/" in each["route"] and each["status"] == 204 for each in server.requests)


def refusals(servers: list[Server]) -> int:
    return sum(each["status"] >= 400 for server in servers for each in server.requests)


def sound(server: Server) -> bool:
    """Whether every byte that the catalog knows of is there and right."""
    done = run("fsck", "--read-data", "--json", "--data-dir", str(server.data_dir), *server.args)
    return done.returncode == 0 and json.loads(done.stdout)["findings"] == []


METHODS = {"in-turn": "", "sticky": "hash $remote_addr consistent;", "random": "random;"}


@long
@pytest.mark.parametrize("method", some(METHODS, 3))
def test_what_is_saved_through_a_balancer_is_there_bit_for_bit(
    servers: list[Server], model_name: str, tmp_path: Path, method: str
) -> None:
    refused_before, parts_before = refusals(servers), [parts(server) for server in servers]
    with balanced(tmp_path / "nginx", servers, METHODS[method]) as url, Client(url, progress=False) as client:
        model = client.model(model_name)
        obj = training(1, 68)
        first = model.save(obj)
        assert first.digest is None  # it went in parts
        assert equal(model.load(first), obj)
        obj["model_state_dict"]["head"] += 1
        changed = model.save_async(obj).result()
        assert changed.new_bytes < 0.6 * first.bytes
        assert equal(model.load("latest"), obj)
        torch.save(obj, tmp_path / "obj.pt")
        uploaded = model.upload(tmp_path / "obj.pt")
        assert uploaded.new_bytes < MIB
        assert model.download(uploaded, tmp_path / "back.pt").read_bytes() == (tmp_path / "obj.pt").read_bytes()
        small = model.save({"epoch": 4, "weight": torch.ones(3)})
        assert [each.version for each in model.checkpoints()] == [4, 3, 2, 1]
        assert torch.equal(model.load(small)["weight"], torch.ones(3))
    assert refusals(servers) == refused_before

    def has_parts() -> list[bool]:
        return [parts(server) > before for server, before in zip(servers, parts_before, strict=True)]

    assert_soon(lambda: sum(has_parts()) == (1 if method == "sticky" else 2))
    assert sound(servers[0])


@pytest.mark.parametrize("number", [0, 1])
def test_a_server_that_is_killed_amid_a_save_is_not_missed(
    servers: list[Server], model_name: str, tmp_path: Path, number: int
) -> None:
    obj, once = training(1, 68), threading.Lock()
    victim: list[Server] = []

    def kill(_: str, done: int, total: int | None) -> None:
        if total and done > total / 2 and once.acquire(blocking=False):
            victim.append(servers[number])
            victim[0].kill()

    with balanced(tmp_path / "nginx", servers, "") as url, Client(url, progress=kill) as client:
        model = client.model(model_name)
        checkpoint = model.save(obj)
        assert victim
        assert equal(model.load(checkpoint), obj)
        assert [each.version for each in model.checkpoints()] == [1]
    victim[0].restart()
    assert sound(servers[0])
