"""A replica that is killed while it sends or receives, one of three on PostgreSQL and S3, behind a balancer."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import torch

from stateroom import Client
from tests.differential.equality import equal
from tests.functional.busy_clients import findings
from tests.functional.on_s3 import noise
from tests.support.nginx import balanced, nginx_program
from tests.support.postgres import Postgres
from tests.support.replicas import separate_replicas
from tests.support.s3 import S3
from tests.support.server import Server
from tests.support.waiting import is_spooling

MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(nginx_program() is None, reason="no nginx at hand: apt install nginx-light")


@pytest.fixture(scope="module")
def replicas(postgres: Postgres, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    with separate_replicas(tmp_path_factory.mktemp("replicas"), postgres, s3) as running:
        yield running


@pytest.fixture
def url(replicas: list[Server], tmp_path: Path) -> Iterator[str]:
    """The balancer's URL. A replica that was killed has another port, so each test has a balancer of its own."""
    for replica in replicas:
        if replica.process.poll() is not None:
            replica.restart()
    with balanced(tmp_path / "nginx", replicas, "") as url:
        yield url


def is_sending(server: Server) -> bool:
    with server.client() as http:
        return "stateroom_open_streams 0.0" not in http.get("/metrics").text


def kill_one(replicas: list[Server], is_at_it: Callable[[Server], bool]) -> bool:
    """Kill a replica that is at it. Return False if none is just now."""
    victim = next(filter(is_at_it, replicas), None)
    if victim is not None:
        victim.kill()
    return victim is not None


class Kill:
    """Progress of a client that kills one of ``replicas`` as soon as one is at it and half of the bytes have passed."""

    def __init__(self, replicas: list[Server], is_at_it: Callable[[Server], bool]) -> None:
        self.is_done = False
        self._replicas = replicas
        self._is_at_it = is_at_it
        self._lock = threading.Lock()

    def __call__(self, _: str, done: int, total: int | None) -> None:
        with self._lock:
            if total and done > total / 2 and not self.is_done:
                self.is_done = kill_one(self._replicas, self._is_at_it)


def test_a_client_loads_through_the_death_of_a_replica_that_was_sending(
    replicas: list[Server], url: str, model_name: str
) -> None:
    obj = {"epoch": 1, "weights": [noise(20) for _ in range(5)]}
    with Client(url, progress=False) as client:
        client.model(model_name).save(obj)
    kill = Kill(replicas, is_sending)
    with Client(url, progress=kill) as client:
        assert equal(client.model(model_name).load("latest"), obj)
    assert kill.is_done


def gets_parts(_: Server) -> bool:
    """The balancer gives each replica one of the four parts that are sent at once."""
    return True


@pytest.mark.parametrize(("is_zip", "is_receiving"), [(True, gets_parts), (False, is_spooling)])
def test_a_client_uploads_through_the_death_of_a_replica_that_was_receiving(
    replicas: list[Server],
    url: str,
    s3: S3,
    model_name: str,
    tmp_path: Path,
    is_zip: bool,
    is_receiving: Callable[[Server], bool],
) -> None:
    """A file in torch's format of today goes in parts, and one in the format before goes in one request."""
    obj = {"epoch": 1, "weights": [noise(17) for _ in range(4)]}
    torch.save(obj, tmp_path / "obj.pt", _use_new_zipfile_serialization=is_zip)
    kill = Kill(replicas, is_receiving)
    with Client(url, progress=kill) as client:
        model = client.model(model_name)
        checkpoint = model.upload(tmp_path / "obj.pt")
        assert kill.is_done
        assert (checkpoint.digest is None) == is_zip
        assert [each.version for each in model.checkpoints()] == [checkpoint.version] == [1]
        assert equal(model.load(checkpoint), obj)
    assert findings(replicas[0], s3.environment) == []


def test_a_plain_client_goes_on_with_the_range_that_it_lacks(replicas: list[Server], url: str, model_name: str) -> None:
    with Client(url, progress=False) as client:
        checkpoint = client.model(model_name).save({"epoch": 1, "weight": noise(60)})
    address = f"/v1/models/{model_name}/checkpoints/{checkpoint.version}/file"
    got = bytearray()

    def receive(pieces: Iterator[bytes]) -> None:
        got.extend(next(pieces))
        assert kill_one(replicas, is_sending)
        for piece in pieces:
            got.extend(piece)

    with httpx.Client(base_url=url, timeout=60, trust_env=False, verify=False) as http:
        with http.stream("GET", address) as answer, pytest.raises(httpx.RemoteProtocolError):
            receive(answer.iter_bytes())
        assert 0 < len(got) < int(answer.headers["Content-Length"])
        rest = http.get(address, headers={"Range": f"bytes={len(got)}-", "If-Range": answer.headers["ETag"]})
        assert rest.status_code == 206
        assert got + rest.content == http.get(address).content
