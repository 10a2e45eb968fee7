"""Several servers on one database and one store: each serves what another has acknowledged."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

from tests.conftest import StartServer
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import loaded, saved
from tests.support.negotiating import InParts, missing
from tests.support.postgres import Postgres
from tests.support.server import Server

BACKBONE = torch.arange(50_000.0)
UPLOADS = 12
"""Of each server."""


@pytest.fixture
def servers(fresh_server: StartServer, postgres: Postgres, tmp_path: Path) -> Iterator[list[Server]]:
    shared = ("--database-url", postgres.database(), "--store-url", f"file://{tmp_path / 'store'}")
    return [fresh_server(*shared) for _ in range(2)]


def checkpoint(number: int) -> bytes:
    """A backbone that all have, and a head of its own."""
    return saved({"epoch": number, "model": {"backbone": BACKBONE, "head": torch.full((5_000,), float(number))}})


def test_versions_have_no_gaps_and_each_server_serves_what_the_other_stored(servers: list[Server]) -> None:
    together = threading.Barrier(len(servers))

    def upload(server: Server, first: int) -> list[int]:
        with server.client() as http:
            together.wait()
            model = HttpModel(http, "shared/net")
            return [model.upload(checkpoint(first + i))["version"] for i in range(UPLOADS)]

    with ThreadPoolExecutor(len(servers)) as pool:
        versions = list(pool.map(upload, servers, (0, UPLOADS)))
    assert sorted(versions[0] + versions[1]) == list(range(1, 2 * UPLOADS + 1))
    for server in servers:
        with server.client() as http:
            model = HttpModel(http, "shared/net")
            listed = {each["version"]: each for each in model.json(order="version")["items"]}
            assert sorted(listed) == list(range(1, 2 * UPLOADS + 1))
            assert sorted(each["epoch"] for each in listed.values()) == list(range(2 * UPLOADS))
            for version, each in listed.items():
                state = loaded(model.get(f"{version}/state_dict"))
                assert torch.equal(state["head"], torch.full((5_000,), float(each["epoch"])))
                assert torch.equal(state["backbone"], BACKBONE)


def test_bytes_that_one_server_stored_are_not_stored_again_by_the_other(servers: list[Server]) -> None:
    new = []
    for server in servers:
        with server.client() as http:
            new.append(HttpModel(http, "shared/net").upload(checkpoint(1))["new_bytes"])
    assert new[0] > 200_000
    assert new[1] == 0


def test_a_server_that_dies_and_comes_back_disturbs_no_other(servers: list[Server]) -> None:
    first, second = servers
    with second.client() as http:
        model = HttpModel(http, "shared/net")
        model.upload(checkpoint(1))
        with first.client() as dying:
            arriving = dying.build_request("POST", model.url(), content=half_then_kill(first))
            with pytest.raises(httpx.TransportError):
                dying.send(arriving)
        model.upload(checkpoint(2))
        first.restart()
        assert [each["epoch"] for each in model.json()["items"]] == [2, 1]
    with first.client() as http:
        model = HttpModel(http, "shared/net")
        assert torch.equal(loaded(model.get("latest/state_dict"))["head"], torch.full((5_000,), 2.0))
        assert model.upload(checkpoint(3))["version"] == 3


def half_then_kill(server: Server) -> Iterator[bytes]:
    data = checkpoint(9)
    yield data[: len(data) // 2]
    server.kill()
    yield data[len(data) // 2 :]


def test_parts_of_one_upload_reach_any_server_and_any_commits_it(servers: list[Server]) -> None:
    file = InParts(checkpoint(1))
    with servers[0].client() as one, servers[1].client() as other:
        upload = file.announce(one, "shared/net")
        assert file.announce(other, "shared/net")["id"] == upload["id"]
        file.send(one, upload, [0])
        file.send(other, upload, [1])
        assert missing(one.get(upload["url"]).json()) == missing(other.get(upload["url"]).json()) == [2]
        incomplete = other.post(f"{upload['url']}/commit")
        assert (incomplete.status_code, incomplete.json()["code"]) == (409, "missing-blobs")
        file.send(one, upload, [2])
        keyed = {"Idempotency-Key": "one"}
        committed = other.post(f"{upload['url']}/commit", headers=keyed).json()
        assert committed["version"] == 1
        for http in (one, other):
            assert http.get(committed["urls"]["original"]).content == file.data
            again = http.post(f"{upload['url']}/commit", headers=keyed)
            assert (again.status_code, again.json()["version"]) == (201, 1)
        plain = other.post("/v1/models/shared/net/checkpoints", content=file.data, headers=keyed)
        assert (plain.json()["version"], plain.headers["Idempotency-Replayed"]) == (1, "true")
        given_up = InParts(checkpoint(2)).announce(one, "shared/net")
        assert other.delete(given_up["url"]).status_code == 204
        assert one.get(given_up["url"]).status_code == 410


def test_a_server_whose_database_was_never_migrated_says_so(
    fresh_server: StartServer, postgres: Postgres, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="run stateroom-server migrate first"):
        fresh_server("--database-url", postgres.empty_database(), "--store-url", f"file://{tmp_path / 'store'}")
