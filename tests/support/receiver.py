"""A receiver of webhooks, a process of its own: ``python -m tests.support.receiver PORT FILE``.

It appends each request to the file, as JSON, and answers 204; at ``/moved`` 302, and at ``/broken`` 500.
"""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tests.support.server import ROOT, whole_lines
from tests.support.waiting import assert_soon


@dataclass
class Receiver:
    """A receiver that can be killed and started again, on the same port."""

    file: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        said = self.file.with_suffix(".port")
        said.unlink(missing_ok=True)
        words = [sys.executable, "-m", "tests.support.receiver", str(self.port), str(self.file)]
        self.process = subprocess.Popen(words, cwd=ROOT)
        assert_soon(lambda: said.exists() and bool(said.read_text()))
        self.port = int(said.read_text())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def seen(self) -> list[dict]:
        """The requests, in the order in which they came."""
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in whole_lines(self.file.read_text())]
        return []


class _Handler(BaseHTTPRequestHandler):
    file: Path

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.file.open("a") as file:
            file.write(json.dumps({"path": self.path, "headers": headers, "body": body}) + "\n")
        self.send_response({"/moved": 302, "/broken": 500}.get(self.path, 204))
        if self.path == "/moved":
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    _Handler.file = Path(sys.argv[2])
    with HTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler) as server:
        _Handler.file.with_suffix(".port").write_text(str(server.server_address[1]))
        server.serve_forever()
