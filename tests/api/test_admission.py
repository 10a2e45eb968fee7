"""Limits of a server's input: bytes of one upload, uploads at once, bytes and fields of a head, pipelined requests."""

import json
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import general, problem
from tests.conftest import StartServer
from tests.support.raw_http import answer_on, connected, get, post, raw, rest_of
from tests.support.server import Server, start_server
from tests.support.waiting import assert_soon, is_spooling

CHECKPOINTS = "/v1/models/a/b/checkpoints"
LIMIT = 100_000
FILE = general(size=32)
AHEAD = 40
"""Requests sent at once: more than may wait for their answers."""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Takes in one upload at once, and none of more than LIMIT bytes."""
    options = ("--max-uploads", "1", "--max-upload-bytes", str(LIMIT))
    server = start_server(tmp_path_factory.mktemp("strict") / "data", *options, env={"STATEROOM_DURABLE": "off"})
    yield server
    server.kill()


@pytest.fixture
def http(strict: Server) -> Iterator[httpx.Client]:
    with strict.client() as http:
        yield http


def begun(server: Server) -> socket.socket:
    """An upload that has begun and will not go on by itself."""
    connection = connected(server)
    connection.sendall(post(CHECKPOINTS, f"Content-Length: {len(FILE)}", "Expect: 100-continue"))
    assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
    return connection


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_asked_for(strict: Server) -> None:
    status, body = raw(strict, post(CHECKPOINTS, f"Content-Length: {LIMIT + 1}", "Expect: 100-continue"))
    assert (status, json.loads(body)["code"]) == (413, "too-large")
    assert f"{LIMIT:,} bytes" in json.loads(body)["detail"]


def test_a_body_that_turns_out_too_large_is_refused_and_leaves_nothing(strict: Server, http: httpx.Client) -> None:
    chunks = (b"x" * 10_000 for _ in range(LIMIT // 10_000 + 1))
    assert problem(http.post(CHECKPOINTS, content=chunks)) == (413, "too-large")
    assert_soon(lambda: not is_spooling(strict))


def test_a_form_counts_as_a_whole(http: httpx.Client) -> None:
    form = {"file": ("x.pt", FILE), "note": (None, "x" * LIMIT)}
    assert problem(http.post(CHECKPOINTS, files=form)) == (413, "too-large")


def test_one_upload_too_many_is_told_when_to_come_back_and_its_body_is_not_read(
    strict: Server, http: httpx.Client
) -> None:
    with begun(strict) as first:
        with connected(strict) as second:
            second.sendall(post(CHECKPOINTS, f"Content-Length: {len(FILE)}", "Expect: 100-continue"))
            status, body = answer_on(second)
        assert (status, json.loads(body)["code"]) == (503, "too-many-uploads")
        answer = http.post(CHECKPOINTS, content=FILE)
        assert problem(answer) == (503, "too-many-uploads")
        assert int(answer.headers["Retry-After"]) > 0
        assert http.get("/v1/models").status_code == 200
        first.sendall(FILE)
        assert answer_on(first)[0] == 201
    assert http.post(CHECKPOINTS, content=FILE).status_code == 201


def test_an_upload_that_breaks_off_or_is_refused_makes_room(strict: Server, http: httpx.Client) -> None:
    begun(strict).close()
    assert_soon(lambda: http.post(CHECKPOINTS, content=FILE).status_code == 201)
    assert problem(http.post(CHECKPOINTS, content=b"no checkpoint"))[0] == 422
    assert http.post(CHECKPOINTS, content=FILE).status_code == 201


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (get("/healthz?" + "x" * 70_000), 414),
        (get("/healthz", "X-Long: " + "x" * 70_000), 431),
        (get("/healthz", *[f"X-{i}: {'x' * 700}" for i in range(99)]), 431),
        (get("/healthz", *[f"X-{i}: x" for i in range(101)]), 431),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"x" * 200_000, 431),
        (b"\0\1\2\3\r\n\r\n", 400),
        (b"GET /healthz HTTP/9.9\r\n\r\n", 400),
        (get("/healthz", "Content-Length: 1", "Content-Length: 2"), 400),
        (post(CHECKPOINTS, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    ],
    ids=[
        "long URL",
        "long field",
        "many long fields",
        "many fields",
        "no end",
        "bytes",
        "HTTP/9.9",
        "2 lengths",
        "smuggled",
    ],
)
def test_a_head_that_is_too_much_or_no_head_is_a_problem_and_the_end(strict: Server, head: bytes, status: int) -> None:
    with connected(strict) as connection:
        with suppress(OSError):
            connection.sendall(head)
        answer, body = answer_on(connection)
        assert answer == status, body
        assert json.loads(body)["status"] == status
        assert rest_of(connection) == b""


def test_a_head_of_decent_size_is_taken(strict: Server) -> None:
    assert raw(strict, get("/healthz", *[f"X-{i}: {'x' * 500}" for i in range(90)]))[0] == 200


def test_requests_ahead_of_their_answers_are_answered_in_order_up_to_a_limit(strict: Server) -> None:
    asked = [f"/v1/models/a/b-{i}" for i in range(AHEAD)]
    with connected(strict) as connection:
        connection.sendall(b"".join(map(get, asked[:8])) + get("/healthz", "Connection: close"))
        answers = rest_of(connection)
    assert re.findall(rb"a/b-\d", answers) == [f"a/b-{i}".encode() for i in range(8)]
    assert answers.count(b"HTTP/1.1 404") == 8
    with connected(strict) as connection:
        connection.sendall(b"".join(map(get, asked)))
        answers = rest_of(connection)
    assert 0 < answers.count(b"HTTP/1.1 404") < AHEAD
    assert answers.count(b"HTTP/1.1 400") == 1


def test_fields_after_a_chunked_body_are_no_headers(strict: Server, http: httpx.Client) -> None:
    chunked = f"{len(FILE):x}\r\n".encode() + FILE + b"\r\n0\r\nX-Request-Id: smuggled\r\n\r\n"
    status, _ = raw(strict, post(CHECKPOINTS, "Transfer-Encoding: chunked", "X-Request-Id: mine", body=chunked))
    assert status == 201
    assert_soon(lambda: any(line["request_id"] == "mine" for line in strict.requests))
    assert "smuggled" not in strict.log


@pytest.mark.skipif(shutil.which("sh") is None, reason="sets its limit through sh")
def test_connections_leave_files_to_all_else(tmp_path: Path) -> None:
    """Of 200 files that the process may open, connections get 150."""
    command = ("sh", "-c", 'ulimit -n 200 && exec "$0" -m app "$@"', sys.executable)
    server = start_server(tmp_path / "data", env={"STATEROOM_DURABLE": "off"}, command=command)
    try:
        with ExitStack() as stack:
            many = [stack.enter_context(connected(server)) for _ in range(170)]
            assert_soon(lambda: len(list(Path(f"/proc/{server.pid}/fd").iterdir())) > 140)
            status, body = raw(server, get("/healthz"))
            assert (status, json.loads(body)["code"]) == (503, "too-many-connections")
            many[0].sendall(post(CHECKPOINTS, f"Content-Length: {len(FILE)}", body=FILE))
            assert answer_on(many[0])[0] == 201
        with server.client() as http:
            assert_soon(lambda: http.get("/healthz").status_code == 200)
    finally:
        server.kill()


def test_every_worker_keeps_to_the_limits(fresh_server: StartServer) -> None:
    server = fresh_server("--workers", "2", "--max-upload-bytes", str(LIMIT))
    for _ in range(10):
        with server.client() as http:
            assert problem(http.post(CHECKPOINTS, content=b"x" * (LIMIT + 1))) == (413, "too-large")
