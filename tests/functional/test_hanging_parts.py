"""Readiness while a part of the server hangs: it takes connections, and does not answer."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import StartServer
from tests.support.hanging import HangingPort, hanging_port
from tests.support.postgres import Postgres
from tests.support.waiting import assert_soon

ENOUGH = 30.0
"""Seconds for an answer that takes three: without a bound it takes minutes."""


@pytest.fixture
def database(postgres: Postgres) -> Iterator[tuple[HangingPort, str]]:
    """A port that may hang, and the URL of a database behind it."""
    name = urlsplit(postgres.database()).path
    (socket,) = [path for path in postgres.folder.glob(".s.PGSQL.*") if path.suffix != ".lock"]
    with hanging_port(socket) as port:
        yield port, f"postgresql://postgres@127.0.0.1:{port.port}{name}"


def test_a_database_that_hangs_is_named_in_time_and_costs_one_thread(
    fresh_server: StartServer, database: tuple[HangingPort, str]
) -> None:
    port, url = database
    server = fresh_server("--database-url", url)

    def ready(_: object = None) -> httpx.Response:
        with server.client(timeout=ENOUGH) as http:
            return http.get("/readyz")

    assert ready().json()["status"] == "ready"
    port.hang()
    first = ready()
    assert (first.status_code, first.json()["code"]) == (503, "not-ready")
    assert first.json()["detail"] == "The catalog does not respond."
    assert first.headers["Retry-After"] == "5"
    threads = Path(f"/proc/{server.pid}/task")
    before = len(list(threads.iterdir()))
    with ThreadPoolExecutor(8) as pool:
        assert [answer.status_code for answer in pool.map(ready, range(40))] == [503] * 40
    assert len(list(threads.iterdir())) < before + 10
    with server.client(timeout=ENOUGH) as http:
        assert http.get("/healthz").status_code == 200
    port.go_on()
    assert_soon(lambda: ready().status_code == 200)
    assert server.stop() == 0
