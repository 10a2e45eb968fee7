"""Connections to other hosts than the server: object stores, by URLs that the server has signed."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stateroom._http.elsewhere import Elsewhere, Unreachable
from stateroom._http.raw import BROKEN

CONTENT = bytes(range(256)) * 40


class Host(ThreadingHTTPServer):
    """Serves ranges of CONTENT, and counts its connections."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.opened = 0
        self.hangs_up = False
        """True: it closes a connection after each answer, without saying so."""
        self.stalls = threading.Event()
        """Set: an answer stops in its middle, until this is cleared."""
        self.is_stalled = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/a%20b?signature=x%2Fy"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Host

    def setup(self) -> None:
        super().setup()
        self.server.opened += 1

    def do_GET(self) -> None:
        assert self.path == "/a%20b?signature=x%2Fy"
        start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + 10])
        if self.server.stalls.is_set():
            self.server.is_stalled.set()
            self.rfile.read(1)  # the end of the connection
            return
        self.wfile.write(CONTENT[start + 10 : end + 1])
        self.close_connection = self.server.hangs_up

    def log_message(self, *_: object) -> None: ...


@contextmanager
def running() -> Iterator[Host]:
    with Host() as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        try:
            yield host
        finally:
            host.shutdown()
            thread.join()


@pytest.fixture
def host() -> Iterator[Host]:
    with running() as host:
        yield host


def get(hosts: Elsewhere, url: str, start: int, end: int) -> bytes:
    answer, memory = hosts.get(url, start, end), memoryview(bytearray(end - start))
    with closing(answer):
        assert answer.status == 206
        done = 0
        while count := answer.readinto(memory[done:]):
            done += count
    return bytes(memory[:done])


def test_one_connection_serves_one_range_after_another(host: Host) -> None:
    with closing(Elsewhere()) as hosts:
        for start in range(0, 5000, 1000):
            assert get(hosts, host.url, start, start + 1000) == CONTENT[start : start + 1000]
    assert host.opened == 1


def test_a_connection_that_the_host_has_closed_is_replaced(host: Host) -> None:
    host.hangs_up = True
    with closing(Elsewhere()) as hosts:
        for start in range(0, 5000, 1000):
            assert get(hosts, host.url, start, start + 1000) == CONTENT[start : start + 1000]
    assert host.opened == 5


def test_an_answer_that_is_not_read_to_its_end_costs_its_connection(host: Host) -> None:
    with closing(Elsewhere()) as hosts:
        answer = hosts.get(host.url, 0, 5000)
        answer.readinto(memoryview(bytearray(10)))
        answer.close()
        assert get(hosts, host.url, 0, 1000) == CONTENT[:1000]
    assert host.opened == 2


def test_close_ends_a_read_that_waits(host: Host) -> None:
    host.stalls.set()
    with closing(Elsewhere()) as hosts:
        reading = threading.Thread(target=_read_in_vain, args=(hosts, host.url))
        reading.start()
        host.is_stalled.wait()
        hosts.close()
        reading.join()
        host.stalls.clear()
        assert get(hosts, host.url, 0, 100) == CONTENT[:100]


def _read_in_vain(hosts: Elsewhere, url: str) -> None:
    with suppress(*BROKEN):
        get(hosts, url, 0, 5000)


def test_a_host_that_does_not_listen_or_is_behind_a_proxy_is_unreachable(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Elsewhere()) as hosts:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))  # and does not listen
            with pytest.raises(Unreachable):
                hosts.get(f"http://127.0.0.1:{held.getsockname()[1]}/x", 0, 1)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with pytest.raises(Unreachable, match="proxy"):
            hosts.get(host.url, 0, 1)
