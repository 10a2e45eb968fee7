"""Connections to PostgreSQL that are lost at any statement of an upload, and a PostgreSQL that restarts."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from urllib.parse import urlsplit

import httpx
import pytest
import torch

from stateroom import Client, Model
from tests.conftest import StartServer
from tests.differential.equality import equal
from tests.functional.on_s3 import noise
from tests.functional.torch_files import saved
from tests.support.commands import run
from tests.support.measure import long, measure
from tests.support.negotiating import InParts, missing
from tests.support.postgres import Postgres, running_postgres
from tests.support.postgres_proxy import Edge, PostgresProxy, postgres_proxy
from tests.support.server import Server, start_server
from tests.support.waiting import LONG_ENOUGH, assert_soon, until_ready

Upload = Callable[[httpx.Client, str, bytes, str], httpx.Response]


@pytest.fixture(scope="module")
def cut_off(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, PostgresProxy]]:
    """A server whose connections to its database are lost when the proxy is told so."""
    database = urlsplit(postgres.database()).path.removeprefix("/")
    with postgres_proxy(postgres.socket) as proxy:
        options = ("--database-url", proxy.url(database))
        server = start_server(tmp_path_factory.mktemp("cut-off") / "data", *options, env={"STATEROOM_DURABLE": "off"})
        yield server, proxy
        server.kill()


def sent(http: httpx.Client, method: str, url: str, **options: object) -> httpx.Response:
    """Send a request, and once more if the server says that another try may succeed."""
    answer = http.request(method, url, **options)
    if answer.status_code == 503:
        assert (answer.json()["code"], answer.headers["Retry-After"]) == ("catalog-failed", "5")
        answer = http.request(method, url, **options)
    return answer


def whole(http: httpx.Client, model: str, data: bytes, key: str) -> httpx.Response:
    return sent(http, "POST", f"/v1/models/{model}/checkpoints", content=data, headers={"Idempotency-Key": key})


def in_parts(http: httpx.Client, model: str, data: bytes, key: str) -> httpx.Response:
    file = InParts(data)
    announced = sent(http, "POST", f"/v1/uploads/{model}", json=file.announcement())
    assert announced.status_code == 201, announced.text
    upload = announced.json()
    for number in missing(upload):
        part = sent(http, "PUT", f"{upload['url']}/blocks/{number}-{number + 1}", content=file.blocks[number])
        assert part.status_code == 204, part.text
    return sent(http, "POST", f"{upload['url']}/commit", headers={"Idempotency-Key": key})


def findings(server: Server) -> list[object]:
    done = run("fsck", "--read-data", "--json", "--data-dir", str(server.data_dir), *server.args)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)["findings"]


@long
@pytest.mark.parametrize("edge", Edge)
@pytest.mark.parametrize("upload", [whole, in_parts])
def test_an_upload_whose_connection_is_lost_at_any_statement_is_stored_once_by_the_next_try(
    cut_off: tuple[Server, PostgresProxy], model_name: str, upload: Upload, edge: Edge
) -> None:
    """All connections are lost at once, as in a restart: a server that used a second one of them would fail twice."""
    server, proxy = cut_off
    files: list[bytes] = []
    with server.client() as http:
        for statement in count(1, measure(5, 1)):
            files.append(saved({"epoch": statement, "weight": torch.randn(5000)}))
            proxy.cut(statement, edge)
            answer = upload(http, model_name, files[-1], f"key-{statement}")
            was_cut = proxy.stop_cutting()
            assert (answer.status_code, answer.json().get("version")) == (201, len(files)), answer.text
            if not was_cut:  # all of its statements have had their turn
                break
        assert len(files) > 5
        listed = http.get(f"/v1/models/{model_name}/checkpoints", params={"limit": 1000}).json()["items"]
        assert [each["version"] for each in listed] == list(range(len(files), 0, -1))
        for version, file in enumerate(files, 1):
            assert http.get(f"/v1/models/{model_name}/checkpoints/{version}/original").content == file
    assert findings(server) == []


def test_uploads_and_downloads_outlive_a_restart_of_the_database(fresh_server: StartServer) -> None:
    with running_postgres() as own:
        server = fresh_server("--database-url", own.database(), env={"STATEROOM_DURABLE": "off"})
        is_over = threading.Event()
        rounds = {"small": 0, "large": 0, "load": 0}

        def work(what: str, once: Callable[[Model], None]) -> None:
            with Client(server.base_url, progress=False, retry_seconds=LONG_ENOUGH) as client:
                model = client.model(f"outage/{what}")
                while not is_over.is_set():
                    once(model)
                    rounds[what] += 1

        def save(mebibytes: float) -> Callable[[Model], None]:
            def once(model: Model) -> None:
                obj = {"epoch": 1, "weight": noise(mebibytes)}
                assert equal(model.load(model.save(obj)), obj)

            return once

        obj = {"epoch": 1, "weight": noise(20)}
        with Client(server.base_url, progress=False) as client:
            client.model("outage/load").save(obj)

        def load(model: Model) -> None:
            assert equal(model.load("latest"), obj)

        with ThreadPoolExecutor(3) as pool, server.client() as http:
            working = [pool.submit(work, *each) for each in (("small", save(0.1)), ("large", save(66)), ("load", load))]
            try:
                assert_soon(lambda: all(rounds.values()))
                own.stop()
                assert_soon(lambda: http.get("/readyz").status_code == 503)
                own.start()
                until_ready(http)
                before = dict(rounds)
                assert_soon(lambda: all(rounds[what] > before[what] for what in rounds))
            finally:
                is_over.set()
            for each in working:
                each.result()
            for what in ("small", "large"):
                assert len(http.get(f"/v1/models/outage/{what}/checkpoints?limit=1000").json()["items"]) == rounds[what]
        assert findings(server) == []
