"""Connections to PostgreSQL that are lost at any statement of an upload, and a PostgreSQL that restarts."""

from collections.abc import Callable, Iterator
from itertools import count
from urllib.parse import urlsplit

import httpx
import pytest
import torch

from app.catalog.commit import BATCH
from tests.conftest import StartServer
from tests.functional.busy_clients import busy_clients, findings
from tests.functional.torch_files import saved
from tests.support.measure import long, measure, only_long
from tests.support.negotiating import InParts, missing
from tests.support.postgres import Postgres, running_postgres
from tests.support.postgres_proxy import Edge, PostgresProxy, postgres_proxy
from tests.support.server import Server, start_server
from tests.support.waiting import assert_soon, until_ready

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


def of_one_tensor(number: int) -> bytes:
    return saved({"epoch": number, "weight": torch.randn(5000)})


def of_many_tensors(number: int) -> bytes:
    """A file with more blobs than one transaction stores."""
    return saved({"epoch": number, "weights": [torch.randn(1100) for _ in range(BATCH + 100)]})


@long
@pytest.mark.parametrize("edge", Edge)
@pytest.mark.parametrize(
    ("make", "upload", "step"),
    [
        (of_one_tensor, whole, measure(5, 1)),
        (of_one_tensor, in_parts, measure(5, 1)),
        pytest.param(of_many_tensors, whole, 29, marks=only_long),
    ],
)
def test_an_upload_whose_connection_is_lost_at_any_statement_is_stored_once_by_the_next_try(
    cut_off: tuple[Server, PostgresProxy],
    model_name: str,
    make: Callable[[int], bytes],
    upload: Upload,
    step: int,
    edge: Edge,
) -> None:
    """All connections are lost at once, as in a restart: a server that used a second one of them would fail twice."""
    server, proxy = cut_off
    files: list[bytes] = []
    with server.client() as http:
        for statement in count(1, step):
            files.append(make(statement))
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


def test_the_log_says_why_the_database_failed(cut_off: tuple[Server, PostgresProxy]) -> None:
    server, proxy = cut_off
    answers: list[httpx.Response] = []

    def is_refused() -> bool:
        """A connection that was idle is asked whether it works, and replaced. One that has just been used is not."""
        proxy.cut(1, Edge.BEFORE)
        answers.append(http.get("/v1/models", headers={"X-Request-Id": "why-it-failed"}))
        proxy.stop_cutting()
        return answers[-1].status_code == 503

    with server.client() as http:
        assert_soon(is_refused)
    assert "server closed the connection" not in answers[-1].text

    def messages() -> list[str]:
        return [each["message"] for each in server.lines if each["logger"] == "stateroom.failures"]

    assert_soon(lambda: any("why-it-failed" in each and "server closed the connection" in each for each in messages()))


def test_uploads_and_downloads_outlive_a_restart_of_the_database(fresh_server: StartServer) -> None:
    with running_postgres() as own:
        server = fresh_server("--database-url", own.database(), env={"STATEROOM_DURABLE": "off"})
        with server.client() as http, busy_clients(server) as clients:
            own.stop()
            assert_soon(lambda: http.get("/readyz").status_code == 503)
            own.start()
            until_ready(http)
            clients.go_on()
        assert findings(server) == []
