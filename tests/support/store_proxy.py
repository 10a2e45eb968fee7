"""A proxy in front of an object store that spoils some of its answers."""

import http.client
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"

KINDS = (
    "slow_down",  # 503, and nothing happens
    "error",  # 500, and nothing happens
    "error_after",  # 500, although it has happened
    "reset",  # the connection ends, and nothing happens
    "reset_after",  # the connection ends, although it has happened
    "truncate",  # the body ends early
    "short",  # a shorter body, with its length
    "corrupt",  # one bit is another
    "corrupt_up",  # one bit of what is stored is another
)
METHODS = {"truncate": "GET", "short": "GET", "corrupt": "GET", "corrupt_up": "PUT"}
"""The methods of calls that can be spoiled in one way only."""

OUTAGES = ("slow_down", "reset", "hang")
"""Ways in which all calls fail for a while; ``hang``: they get no answer, and are lost when the outage ends. In
the outage ``read_only``, which is not among them, only calls that change something fail.
"""


@dataclass(slots=True)
class Faults:
    """Spoils every ``every``-th call (0: none), in all ways in turn. In an outage, no call succeeds."""

    every: int = 0
    outage: str | None = None
    refused: int = 0
    spoiled: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_up: threading.Event = field(default_factory=threading.Event)
    _calls: int = 0
    _kinds: Iterator[str] = field(default_factory=lambda: itertools.cycle(KINDS))

    def begin_outage(self, kind: str) -> None:
        self._is_up.clear()
        self.outage = kind

    def end_outage(self) -> None:
        self.outage = None
        self._is_up.set()

    def wait(self) -> None:
        """Wait until the outage ends."""
        self._is_up.wait()

    def next(self, method: str) -> str | None:
        with self._lock:
            if self.outage is not None:
                self.refused += 1
                return self.outage
            self._calls += 1
            if not self.every or self._calls % self.every:
                return None
            kind = next(self._kinds)
            while METHODS.get(kind, method) != method:
                kind = next(self._kinds)
            self.spoiled[kind] += 1
            return kind


@contextmanager
def spoiling(endpoint: str) -> Iterator[tuple[str, Faults]]:
    """Yield the URL of a proxy in front of ``endpoint``, and its faults."""
    faults = Faults()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(urlsplit(endpoint).netloc, faults))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        faults.end_outage()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Yield the URL of a server that answers every request in the same way."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(upstream: str, faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = faults.next(self.command)
            match fault:
                case "slow_down":
                    return self.answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
                case "read_only" if self.command not in {"GET", "HEAD"}:
                    return self.answer(403, {"Content-Type": "application/xml"}, DENIED)
                case "error":
                    return self.answer(500, {}, b"")
                case "reset":
                    return self.hang_up()
                case "hang":
                    faults.wait()
                    return self.hang_up()
                case "corrupt_up" if body:
                    body = bytes([body[0] ^ 1]) + body[1:]
            connection = http.client.HTTPConnection(upstream, timeout=120)
            try:  # with the Host of the request, which its signature covers
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                response = connection.getresponse()
                data = response.read()
            finally:
                connection.close()
            headers = {name: value for name, value in response.getheaders() if name.lower() not in _OWN}
            match fault:
                case "error_after":
                    return self.answer(500, {}, b"")
                case "reset_after":
                    return self.hang_up()
                case "truncate":
                    self.answer(response.status, headers, data[: len(data) // 2], length=len(data))
                    return self.hang_up()
                case "short" if data:
                    data = data[: len(data) // 2]
                case "corrupt" if data:
                    data = bytes([data[0] ^ 1]) + data[1:]
            length = int(response.headers["Content-Length"]) if self.command == "HEAD" else len(data)
            return self.answer(response.status, headers, data, length=length)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def answer(self, status: int, headers: dict[str, str], data: bytes, length: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def hang_up(self) -> None:
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


_OWN = frozenset({"content-length", "transfer-encoding", "connection"})
