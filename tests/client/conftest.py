"""A scripted network: a real HTTP server whose answers a test writes."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stateroom import Client
from tests.support.server import Server


@dataclass
class Seen:
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What is sent back. ``cut`` is after how many bytes of the body the connection is lost; ``drop``: before any
    byte of the answer.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    drop: bool = False


@dataclass
class ScriptedServer:
    url: str
    seen: list[Seen]


Script = Callable[[Seen], Answer]
StartScripted = Callable[..., ScriptedServer]


def in_turn(*answers: Answer) -> Script:
    """The answers one after another, the last one for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def described(**fields: object) -> Answer:
    """A checkpoint as the server describes it."""
    checkpoint = {
        "model": "a/b",
        "version": 1,
        "run": None,
        "epoch": None,
        "step": None,
        "loss": None,
        "metrics": {},
        "tags": {},
        "format": "torch_zip",
        "devices": ["cpu"],
        "components": [],
        "unsafe_globals": [],
        "bytes": 1,
        "new_bytes": 1,
        "digest": "blake3:0",
        "sha256": "0",
        "created_at": "2026-01-02T03:04:05.678Z",
        **fields,
    }
    return Answer(body=json.dumps(checkpoint).encode(), headers={"Content-Type": "application/json"})


def problem(status: int, code: str, **headers: str) -> Answer:
    """An error as the server words it."""
    body = json.dumps({"code": code, "detail": f"this is {code}", "status": status}).encode()
    return Answer(status, body, {"Content-Type": "application/problem+json", **headers})


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is nothing to print."""


@pytest.fixture
def scripted() -> Iterator[StartScripted]:
    """Starts a server that answers with what ``script(request)`` returns, on a free port unless one is named."""
    running: list[ThreadingHTTPServer] = []

    def start(script: Script, port: int = 0) -> ScriptedServer:
        seen: list[Seen] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                request = Seen(self.command, self.path, dict(self.headers), self.rfile.read(length))
                seen.append(request)
                answer = script(request)
                if not answer.drop:
                    self.send_response(answer.status)
                    for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer.body[: answer.cut])
                if answer.drop or answer.cut is not None:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *args: object) -> None: ...

        server = Quiet(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return ScriptedServer(f"http://127.0.0.1:{server.server_port}", seen)

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests reaches the client."""
    for name in (
        "STATEROOM_URL",
        "STATEROOM_TOKEN",
        "STATEROOM_RUN",
        "STATEROOM_RETRY_SECONDS",
        "STATEROOM_SPOOL_DIR",
        "RANK",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of the shared server."""
    with Client(server.base_url) as client:
        yield client
