"""Clients that send late, stall or stop reading are disconnected, and meanwhile block nobody."""

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
import torch

from tests.functional.audited import whole_checkpoint
from tests.functional.torch_files import saved
from tests.support.raw_http import answer_on, connected, get, post, raw, rest_of
from tests.support.server import Server, start_server
from tests.support.waiting import LONG_ENOUGH, Pace, assert_soon, at_a_steady_pace, downloads_ended, is_spooling

PATIENCE = 2
"""Seconds that a head has to come in, that a body may pause, and that an answer may lie untaken."""

CHECKPOINTS = "/v1/models/slow/clients/checkpoints"
ENDED = select.POLLRDHUP | select.POLLHUP | select.POLLERR
TRICKLE = b"GET /healthz HTTP/1.1\r\nX-Slow: "


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {f"STATEROOM_{name}_SECONDS": str(PATIENCE) for name in ("HEAD", "BODY", "SEND")}
    server = start_server(tmp_path_factory.mktemp("slow") / "data", env={"STATEROOM_DURABLE": "off", **limits})
    yield server
    server.kill()


@pytest.fixture(scope="module")
def large(impatient: Server) -> str:
    """The URL of a file that no socket's buffers hold."""
    with impatient.client() as http:
        answer = http.post("/v1/models/slow/large/checkpoints", content=saved({"w": torch.zeros(8_000_000)}))
        assert answer.status_code == 201
        return f"{answer.headers['Location']}/original"


def not_held_up(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer to a client that does not dawdle; it asks again if the machine made it a slow one, too."""
    while True:
        began = time.monotonic()
        with suppress(httpx.TransportError):
            answer = ask()
            if answer.status_code != 408:
                return answer
        assert time.monotonic() - began > PATIENCE / 2


def deaf(server: Server, url: str, *fields: str) -> socket.socket:
    """Asks for ``url`` and takes nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(get(url, *fields))
    return connection


def all_ended(connections: Sequence[socket.socket]) -> bool:
    """Without reading, which would be progress."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection, ENDED)
    return len(poll.poll(0)) == len(connections)


def is_up(server: Server) -> Callable[[], object]:
    """Asks the server for its health, over a connection of its own."""
    return lambda: raw(server, get("/healthz", "Connection: close"))


@contextmanager
def dripping(connections: Sequence[socket.socket], pace: Pace | None = None) -> Iterator[None]:
    """Meanwhile each gets a byte every now and then, so that none is ever silent for long."""
    over = threading.Event()

    def drip() -> None:
        while not over.is_set():
            pace.pause(PATIENCE / 10)
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(b"x")

    pace = pace or Pace(lambda: None)
    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_two_hundred_slow_connections_hold_up_nobody_and_are_all_let_go(impatient: Server, large: str) -> None:
    data = whole_checkpoint()
    spool = impatient.data_dir / "spool"
    with ExitStack() as stack:
        silent, trickling, stalled = (
            [stack.enter_context(connected(impatient)) for _ in range(count)] for count in (60, 60, 50)
        )
        not_listening = [stack.enter_context(deaf(impatient, large)) for _ in range(30)]
        for connection in trickling:
            connection.sendall(TRICKLE)
        for connection in stalled:
            connection.sendall(post(CHECKPOINTS, "Content-Length: 1000000", body=data[:1000]))
        slow = [*silent, *trickling, *stalled, *not_listening]
        assert len(slow) == 200

        uploads = 0
        deadline = time.monotonic() + LONG_ENOUGH
        with impatient.client() as http, dripping(trickling):
            while not all_ended(slow):
                assert time.monotonic() < deadline
                uploads += 1
                once = {"Idempotency-Key": str(uploads)}
                answer = not_held_up(lambda once=once: http.post(CHECKPOINTS, content=data, headers=once))
                assert (answer.status_code, answer.json()["version"]) == (201, uploads)
                url = f"{CHECKPOINTS}/{uploads}/original"
                assert not_held_up(lambda url=url: http.get(url)).content == data
                listed = not_held_up(lambda: http.get(CHECKPOINTS)).json()["items"]
                assert len(listed) == min(uploads, 50)
        assert uploads > 0
        assert all(rest_of(connection) == b"" for connection in silent)
        assert all(b" 408 " in rest_of(connection) for connection in [*trickling, *stalled])
    assert_soon(lambda: not list(spool.iterdir()))


def test_a_late_head_is_a_408_however_steadily_it_comes(impatient: Server) -> None:
    with connected(impatient) as connection:
        connection.sendall(TRICKLE)
        with dripping([connection]):
            status, body = answer_on(connection)
    assert (status, json.loads(body)["detail"]) == (
        408,
        f"The headers did not arrive within {PATIENCE} s.",
    )


def test_a_body_that_stalls_is_a_408_and_leaves_nothing(impatient: Server) -> None:
    path = "/v1/models/slow/stalled/checkpoints"
    with connected(impatient) as connection, impatient.client() as http:
        connection.sendall(post(path, "Content-Length: 1000", body=b"PK\3\4"))
        status, body = answer_on(connection)
        assert http.get("/v1/models/slow/stalled").status_code == 404
    assert (status, json.loads(body)["detail"]) == (408, f"No bytes of the body arrived for {PATIENCE} s.")
    assert_soon(lambda: [request["status"] for request in impatient.requests if request["path"] == path] == [408])


def test_a_body_that_takes_long_but_never_stalls_is_taken(impatient: Server) -> None:
    data = whole_checkpoint()
    pieces = 8
    size = -(-len(data) // pieces)

    def body(pace: Pace) -> Iterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]
            pace.pause(PATIENCE / 5)

    with impatient.client() as http:

        def attempt(pace: Pace) -> None:
            answer = http.post("/v1/models/slow/steady/checkpoints", content=body(pace))
            assert answer.status_code == 201
            assert answer.elapsed.total_seconds() > PATIENCE
            assert http.get(f"{answer.headers['Location']}/original").content == data

        at_a_steady_pace(attempt, is_up(impatient), PATIENCE / 2)


def test_a_body_that_trickles_is_a_408_and_leaves_nothing(impatient: Server) -> None:
    """It never pauses for long, and would hold its place for days."""
    began = post("/v1/models/slow/trickling/checkpoints", "Content-Length: 1000000", body=b"PK\3\4")

    def attempt(pace: Pace) -> None:
        with connected(impatient) as connection, impatient.client() as http:
            connection.sendall(began)
            with dripping([connection], pace):
                status, body = answer_on(connection)
            assert http.get("/v1/models/slow/trickling").status_code == 404
        assert (status, json.loads(body)["code"]) == (408, "request-timeout")
        assert "1,024 bytes a second" in json.loads(body)["detail"]

    at_a_steady_pace(attempt, is_up(impatient), PATIENCE / 2)
    assert_soon(lambda: not is_spooling(impatient))


def test_a_long_body_that_trickles_past_the_parser_is_a_408(impatient: Server) -> None:
    with connected(impatient) as connection:
        began = post("/v1/models/slow/past/checkpoints", "Content-Length: 9000000", body=b"PK\3\4")
        connection.sendall(began)
        connection.sendall(bytes(1000))
        with dripping([connection]):
            assert answer_on(connection)[0] == 408


def test_a_client_that_takes_a_trickle_is_cut_off(impatient: Server, large: str) -> None:
    with deaf(impatient, large) as connection:
        deadline = time.monotonic() + LONG_ENOUGH
        while not all_ended([connection]):
            assert time.monotonic() < deadline
            connection.recv(16)  # so that it moves, if only just
            time.sleep(PATIENCE / 10)


def test_a_client_that_takes_little_at_a_time_gets_it_all(impatient: Server, large: str) -> None:
    def attempt(pace: Pace) -> None:
        taken = 0
        with impatient.client() as http, http.stream("GET", large) as answer:
            began = time.monotonic()
            for chunk in answer.iter_raw(1 << 22):
                taken += len(chunk)
                pace.pause(PATIENCE / 5)
            assert time.monotonic() - began > PATIENCE
            assert taken == int(answer.headers["Content-Length"])

    at_a_steady_pace(attempt, is_up(impatient), PATIENCE / 2)


def test_a_client_that_stops_listening_is_cut_off(impatient: Server, large: str) -> None:
    def ended() -> list[dict]:
        return [line for line in impatient.requests if line["request_id"] == "deaf"]

    with deaf(impatient, large, "X-Request-Id: deaf") as connection:
        assert_soon(lambda: all_ended([connection]))
        assert_soon(lambda: len(ended()) == 1)
        assert 0 < ended()[0]["bytes_out"] < 32_000_000
        assert_soon(lambda: downloads_ended(impatient))


def test_an_idle_connection_is_kept_between_requests(impatient: Server) -> None:
    with connected(impatient) as connection:
        connection.sendall(get("/healthz"))
        assert answer_on(connection)[0] == 200
        time.sleep(PATIENCE * 1.5)
        connection.sendall(get("/healthz"))
        assert answer_on(connection)[0] == 200
