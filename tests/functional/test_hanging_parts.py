"""Readiness while a part of the server hangs: it takes connections, and does not answer."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.hanging import HangingPort, hanging_port
from tests.support.postgres import Postgres
from tests.support.s3 import S3
from tests.support.server import Server
from tests.support.waiting import assert_soon

ENOUGH = 60.0
"""Seconds for an answer that takes three: without a bound it takes minutes."""


@pytest.fixture
def database(postgres: Postgres) -> Iterator[tuple[HangingPort, str]]:
    """A port that may hang, and the URL of a database behind it."""
    name = urlsplit(postgres.database()).path
    (path,) = [path for path in postgres.folder.glob(".s.PGSQL.*") if path.suffix != ".lock"]

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        return connection

    with hanging_port(connect) as port:
        yield port, f"postgresql://postgres@127.0.0.1:{port.port}{name}"


def ready(server: Server) -> httpx.Response:
    with server.client(timeout=ENOUGH) as http:
        return http.get("/readyz")


def test_a_database_that_hangs_is_named_in_time_and_costs_one_thread(
    fresh_server: StartServer, database: tuple[HangingPort, str]
) -> None:
    port, url = database
    server = fresh_server("--database-url", url)

    assert_soon(lambda: ready(server).status_code == 200)
    port.hang()
    first = ready(server)
    assert (first.status_code, first.json()["code"]) == (503, "not-ready")
    assert first.json()["detail"] == "The catalog does not respond."
    assert first.headers["Retry-After"] == "5"
    threads = Path(f"/proc/{server.pid}/task")
    before = len(list(threads.iterdir()))
    with ThreadPoolExecutor(8) as pool:
        assert [answer.status_code for answer in pool.map(ready, [server] * 40)] == [503] * 40
    assert len(list(threads.iterdir())) < before + 10
    with server.client(timeout=ENOUGH) as http:
        assert http.get("/healthz").status_code == 200
    port.go_on()
    assert_soon(lambda: ready(server).status_code == 200)
    assert server.stop() == 0


def test_a_store_that_hangs_is_named_in_time(fresh_server: StartServer, s3: S3) -> None:
    with hanging_port(lambda: socket.create_connection(("127.0.0.1", s3.port))) as port:
        env = {**s3.environment, "STATEROOM_STORE_ENDPOINT": f"http://127.0.0.1:{port.port}"}
        server = fresh_server("--store-url", s3.new_url(), env=env)
        assert_soon(lambda: ready(server).status_code == 200)
        port.hang()
        for _ in range(3):
            refused = ready(server)
            assert (refused.status_code, refused.json()["code"]) == (503, "not-ready")
            assert refused.json()["detail"].startswith("The store does not respond")
        port.go_on()
        assert_soon(lambda: ready(server).status_code == 200)
        assert server.stop() == 0
