"""Long bodies read directly from the socket: no byte is lost, and the connection goes on as any other."""

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from app.api.http1.body_reader import MIN_BYTES, read_into
from app.api.http1.limits import Limits, why_cut
from app.api.http1.protocol import protocol
from app.api.middleware.drain import Drain
from tests.support.measure import some
from tests.support.raw_http import rest_of
from tests.support.waiting import LONG_ENOUGH, Pace, assert_soon, at_a_steady_pace

SIZE = 8 * MIN_BYTES + 12345
BODY = bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251)
BUFFER = 3 * MIN_BYTES + 7
PATIENCE = 3.0
"""Seconds that an impatient server waits for the next bytes of a body."""


class Reading:
    """An application that reads bodies into buffers, says what came, and remembers how."""

    def __init__(self) -> None:
        self.seen: list[dict] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen = {"in_place": 0, "bytes": 0, "timeouts": 0, "sha256": "", "ended": "whole"}
        self.seen.append(seen)
        hasher = hashlib.sha256()
        limit = int(scope["query_string"] or SIZE)
        message: Message = {"type": "http.request", "more_body": True}
        while message.get("more_body") and seen["bytes"] < limit:
            buffer = memoryview(bytearray(BUFFER))
            if scope["path"] != "/as-it-comes" or not seen["in_place"]:
                read_into(scope, buffer)
            try:
                async with asyncio.timeout(0.02 if scope["path"] == "/now-and-then" else None):
                    message = await receive()
            except TimeoutError:
                seen["timeouts"] += 1
                continue
            if message["type"] == "http.disconnect":
                seen["ended"] = "too slow" if why_cut(scope) else "gone"
                return
            body = message["body"]
            hasher.update(body)
            seen["bytes"] += len(body)
            seen["in_place"] += isinstance(body, memoryview) and body.obj is buffer.obj
        answer = json.dumps(seen | {"sha256": hasher.hexdigest()}).encode()
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def last(self, ended: str) -> dict:
        assert_soon(lambda: self.seen != [] and self.seen[-1]["ended"] == ended)
        return self.seen[-1]


LOOPS = ("uvloop", "asyncio")


@pytest.fixture(scope="module", params=LOOPS)
def serving(request: pytest.FixtureRequest) -> Iterator[tuple[Reading, int]]:
    with served(request.param, LONG_ENOUGH) as served_here:
        yield served_here


@pytest.fixture(scope="module", params=some(LOOPS, 2))
def impatient(request: pytest.FixtureRequest) -> Iterator[tuple[Reading, int]]:
    with served(request.param, PATIENCE) as served_here:
        yield served_here


@contextmanager
def served(loop: str, body_seconds: float) -> Iterator[tuple[Reading, int]]:
    """Serve the application in a thread of this process; yield it, and its port."""
    application = Reading()
    limited = protocol(Limits(body_seconds=body_seconds))
    config = uvicorn.Config(
        Drain(application), http=limited, loop=loop, lifespan="off", access_log=False, log_level="error"
    )
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield application, listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
            asyncio.set_event_loop(None)


class Connected:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._file: BinaryIO = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def status_and_body(self) -> tuple[int, bytes]:
        lines = list(iter(self._file.readline, b"\r\n"))
        (length,) = (int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:"))
        return int(lines[0].split()[1]), self._file.read(length)

    def answer(self) -> dict:
        status, body = self.status_and_body()
        assert status == 200
        return json.loads(body)


@pytest.fixture
def connection(serving: tuple[Reading, int]) -> Iterator[Connected]:
    connection = Connected(serving[1])
    yield connection
    connection.close()


def head(path: str = "/", *fields: str, size: int = SIZE) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {size}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def is_whole(seen: dict, body: bytes = BODY) -> bool:
    return seen["bytes"] == len(body) and seen["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("early", [0, 1, 70_000, SIZE - MIN_BYTES + 1, SIZE - 1, SIZE])
@pytest.mark.parametrize("step", [65_537, SIZE])
def test_a_long_body_arrives_whole_and_the_next_request_is_understood(
    connection: Connected, early: int, step: int
) -> None:
    """``early`` bytes of the body come with its head, and another request comes with its end."""
    connection.send(head() + BODY[:early])
    time.sleep(0.05)
    for start in range(early, SIZE, step):
        connection.send(BODY[start : min(start + step, SIZE)])
        time.sleep(0.001)
    connection.send(head(size=3) + b"abc")
    first = connection.answer()
    assert is_whole(first)
    assert first["in_place"] or early > SIZE - MIN_BYTES
    assert is_whole(connection.answer(), b"abc")
    connection.send(head() + BODY)
    assert is_whole(connection.answer())


def test_requests_that_come_at_once_are_answered_in_order(connection: Connected) -> None:
    thread = threading.Thread(target=connection.send, args=((head() + BODY + head(size=3) + b"abc") * 3,))
    thread.start()
    for _ in range(3):
        assert is_whole(connection.answer())
        assert is_whole(connection.answer(), b"abc")
    thread.join()


def test_who_asks_for_no_buffer_gets_the_rest_as_well(connection: Connected) -> None:
    connection.send(head("/as-it-comes") + BODY)
    seen = connection.answer()
    assert seen["in_place"] == 1
    assert is_whole(seen)


def test_nothing_is_lost_on_a_reader_that_waits_for_a_moment_only(
    serving: tuple[Reading, int], connection: Connected
) -> None:
    before = len(serving[0].seen)
    connection.send(head("/now-and-then"))
    assert_soon(lambda: len(serving[0].seen) > before)
    for start in range(0, SIZE, SIZE // 8):
        waited = serving[0].seen[-1]["timeouts"]
        assert_soon(lambda waited=waited: serving[0].seen[-1]["timeouts"] > waited)
        connection.send(BODY[start : start + SIZE // 8])
    seen = connection.answer()
    assert seen["timeouts"] > 7
    assert is_whole(seen)


def test_line_ends_behind_a_body_are_no_request(connection: Connected) -> None:
    connection.send(head() + BODY + b"\r\n")
    assert is_whole(connection.answer())
    time.sleep(0.1)
    connection.send(b"\r\n" + head() + BODY)
    assert is_whole(connection.answer())


def test_what_asks_for_an_upgrade_and_has_a_body_is_refused_whole(connection: Connected) -> None:
    """The parser takes the body for another protocol, and what comes of it later for a request."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection.send(head("/", "Connection: Upgrade", "Upgrade: h2c", size=len(smuggled)))
    time.sleep(0.05)
    connection.send(smuggled)
    status, body = connection.status_and_body()
    assert status == 400
    assert b"Upgrade" in body
    assert rest_of(connection.socket) == b""


def test_who_waits_for_100_continue_is_told_to(connection: Connected) -> None:
    connection.send(head("/", "Expect: 100-continue"))
    assert connection.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(BODY)
    assert is_whole(connection.answer())


def test_a_chunked_body_comes_as_ever(connection: Connected) -> None:
    connection.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.send(f"{SIZE:x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n" + head(size=3) + b"abc")
    seen = connection.answer()
    assert not seen["in_place"]
    assert is_whole(seen)
    assert is_whole(connection.answer(), b"abc")


def test_an_early_answer_arrives_and_the_rest_of_the_body_is_dropped(connection: Connected) -> None:
    connection.send(head(f"/?{BUFFER}") + BODY)
    assert BUFFER <= connection.answer()["bytes"] < SIZE
    connection.send(head(size=3) + b"abc")
    assert is_whole(connection.answer(), b"abc")


def test_a_client_that_goes_away_is_seen_to(serving: tuple[Reading, int], connection: Connected) -> None:
    connection.send(head() + BODY[: 2 * BUFFER])
    time.sleep(0.1)
    connection.close()
    assert serving[0].last("gone")["in_place"]


def test_a_body_that_stalls_ends_the_connection(impatient: tuple[Reading, int]) -> None:
    application, port = impatient
    with closing(Connected(port)) as connection:
        connection.send(head() + BODY[: 2 * BUFFER])
        assert connection.status_and_body()[0] == 408
    assert application.last("too slow")["in_place"]


def test_a_body_that_comes_slowly_is_taken(impatient: tuple[Reading, int]) -> None:
    _, port = impatient

    def attempt(pace: Pace) -> None:
        with closing(Connected(port)) as connection:
            connection.send(head())
            for start in range(0, SIZE, SIZE // 8):
                connection.send(BODY[start : start + SIZE // 8])
                pace.pause(PATIENCE / 6)
            assert is_whole(connection.answer())

    def other() -> None:
        with closing(Connected(port)) as connection:
            connection.send(head(size=3) + b"abc")
            connection.answer()

    at_a_steady_pace(attempt, other, PATIENCE / 2)
