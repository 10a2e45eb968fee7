"""Callers share a server by token: a greedy caller keeps nobody out, and a caller that leaves frees its share."""

import json
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest
import torch

from tests.api.conftest import general, saved
from tests.conftest import StartServer
from tests.support.measure import long, measure
from tests.support.negotiating import InParts
from tests.support.raw_http import answer_on, connected, get, hang_up, post
from tests.support.server import Server
from tests.support.tokens import bearer, catalog_url, make_token
from tests.support.waiting import assert_soon

FILE = general(size=32)
PLACES = 4
"""Uploads at once, of which one token gets half."""


@dataclass
class Shared:
    """A server with two tokens that are good in a namespace each, and one that may see its figures."""

    server: Server
    greedy: str
    other: str
    watching: str

    def client(self, token: str) -> httpx.Client:
        return self.server.client(headers=bearer(token))

    def gauge(self, name: str, kind: str) -> float:
        with self.client(self.watching) as http:
            lines = http.get("/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f'{name}{{kind="{kind}"}}'))


@pytest.fixture
def shared(fresh_server: StartServer) -> Shared:
    server = fresh_server("--max-uploads", str(PLACES), env={"STATEROOM_DURABLE": "off"})
    url = catalog_url(server)
    greedy, other = (make_token(url, name, "write", space) for name, space in (("greedy", "a"), ("other", "b")))
    return Shared(server, greedy, other, make_token(url, "watching", "read"))


def test_a_token_whose_uploads_trickle_keeps_no_other_out(shared: Shared) -> None:
    begin = post("/v1/models/a/m/checkpoints", f"Authorization: Bearer {shared.greedy}", "Content-Length: 1000000")
    with ExitStack() as stack:
        for _ in range(PLACES // 2):
            connection = stack.enter_context(connected(shared.server))
            connection.sendall(begin + b"PK")
        with connected(shared.server) as one_more:
            assert_soon(lambda: len(list((shared.server.data_dir / "spool").iterdir())) == PLACES // 2)
            one_more.sendall(begin + b"PK")
            status, body = answer_on(one_more)
        assert (status, json.loads(body)["code"]) == (503, "too-many-uploads")
        with shared.client(shared.other) as http:
            assert http.post("/v1/models/b/m/checkpoints", content=FILE).status_code == 201


def test_parts_that_trickle_keep_no_other_out(shared: Shared) -> None:
    parts = InParts(general(size=64))
    with shared.client(shared.greedy) as http, ExitStack() as stack:
        upload = parts.announce(http, "a/m")
        part = f"{upload['url']}/blocks/0-1"
        length = f"Content-Length: {len(parts.blocks[0])}"
        for _ in range(PLACES // 2):
            connection = stack.enter_context(connected(shared.server))
            connection.sendall(f"PUT {part} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.greedy}\r\n".encode())
            connection.sendall(f"{length}\r\nExpect: 100-continue\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        assert http.put(part, content=parts.blocks[0]).status_code == 503
        with shared.client(shared.other) as others:
            assert parts.upload(others, "b/m")["version"] == 1
            assert others.post("/v1/models/b/m/checkpoints", content=FILE).status_code == 201


def test_an_address_has_its_share_where_nobody_needs_a_token(fresh_server: StartServer) -> None:
    server = fresh_server("--max-uploads", "2", "--host", "0.0.0.0", "--insecure", env={"STATEROOM_DURABLE": "off"})
    with connected(server) as trickling:
        trickling.sendall(post("/v1/models/a/m/checkpoints", "Content-Length: 1000000", "Expect: 100-continue"))
        assert trickling.recv(65536).startswith(b"HTTP/1.1 100 ")
        for address, status in (("127.0.0.1", 503), ("127.0.0.2", 201)):
            transport = httpx.HTTPTransport(local_address=address, verify=False)
            with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", transport=transport, timeout=60) as http:
                assert http.post("/v1/models/a/m/checkpoints", content=FILE).status_code == status


@long
def test_downloads_whose_clients_have_gone_are_planned_no_more(shared: Shared) -> None:
    """A client that sends no more may still wait, so it counts as gone after a while only: the first plans are made.
    There are more of them than threads, and each takes a child process a good part of a second.
    """
    clients = 40
    many = saved({f"layer.{i}.weight": torch.zeros(1) for i in range(measure(20_000, 40_000))})
    with shared.client(shared.greedy) as http:
        assert http.post("/v1/models/a/many/checkpoints", content=many).status_code == 201
    for i in range(clients):
        path = f"/v1/models/a/many/checkpoints/1/state_dict?add_prefix=p{i}."
        hang_up(shared.server, get(path, f"Authorization: Bearer {shared.greedy}"))

    def ended() -> list[dict]:
        return [line for line in shared.server.requests if line["route"].endswith("/state_dict")]

    assert_soon(lambda: len(ended()) == clients)
    never_planned = [line for line in ended() if line["status"] == 0]
    assert len(never_planned) > clients // 4
    assert all(line["cut"] for line in never_planned)
    assert_soon(lambda: shared.gauge("stateroom_running_calls", "plan") == 0)
    assert shared.gauge("stateroom_waiting_calls", "plan") == 0


def test_an_index_of_much_that_has_to_be_made_takes_no_thread_from_plans_and_ends_with_its_client(
    shared: Shared,
) -> None:
    """A view of 8 KB that is a gigabyte when it is written out."""
    view = torch.zeros(2000).as_strided((16,) * 7, (7, 6, 5, 4, 3, 2, 1))
    with shared.client(shared.greedy) as http:
        assert http.post("/v1/models/a/view/checkpoints", content=saved({"w": view})).status_code == 201
    path = "/v1/models/a/view/checkpoints/1/state_dict/index?format=safetensors"
    with connected(shared.server) as waiting:
        waiting.sendall(get(path, f"Authorization: Bearer {shared.greedy}"))
        assert_soon(lambda: shared.gauge("stateroom_running_calls", "long plan") == 1)
        assert shared.gauge("stateroom_running_calls", "plan") == 0
    assert_soon(lambda: shared.gauge("stateroom_running_calls", "long plan") == 0)
    assert_soon(lambda: [line["status"] for line in shared.server.requests if line["route"].endswith("/index")] == [0])
