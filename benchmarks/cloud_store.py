"""A stand-in for a cloud's object store, a process of its own: ``python -m benchmarks.cloud_store PORT FOLDER``.

Each answer begins after LATENCY seconds, and one connection carries RATE bytes a second: so the cost of a design that
waits for a store shows on one machine. It speaks as much of S3 as the server needs, and checks no signature.
"""

import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

LATENCY = 0.030
RATE = 90e6
CHUNK = 512 * 1024

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_KEY = re.compile(rb"<Key>([^<]*)</Key>")


class Handler(BaseHTTPRequestHandler):
    """Answers one connection after another request, in a thread of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a short body waits 40 ms for the acknowledgement of its head
    folder: Path

    def do_PUT(self) -> None:
        began = time.monotonic()
        left = int(self.headers["Content-Length"])
        path = self._path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while left and (data := self.rfile.read(min(left, CHUNK))):
                file.write(data)
                left -= len(data)
                self._keep_pace(began, file.tell())
        self._answer(200, b"", ETag='"0"')

    def do_HEAD(self) -> None:
        path = self._path()
        if not path.is_file():
            return self._answer(404, b"")
        return self._answer(200, b"", length=path.stat().st_size, **_DATED)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            return self._list(query.get("prefix", [""])[0])
        path = self._path()
        if not path.is_file():
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        size = path.stat().st_size
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        start, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        fields = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if asked else {}
        self._answer(206 if asked else 200, b"", length=end - start, **fields, **_DATED)
        began, position = time.monotonic(), start
        self.wfile.flush()
        with path.open("rb") as file:
            while position < end:
                position += os.sendfile(self.connection.fileno(), file.fileno(), position, min(CHUNK, end - position))
                self._keep_pace(began, position - start)
        return None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        keys = _KEY.findall(body)
        for key in keys:
            (self.folder / key.decode()).unlink(missing_ok=True)
        deleted = b"".join(b"<Deleted><Key>%b</Key></Deleted>" % key for key in keys)
        self._answer(200, b"<DeleteResult>%b</DeleteResult>" % deleted)

    def _list(self, prefix: str) -> None:
        found = sorted(
            (path.relative_to(self.folder).as_posix(), path.stat().st_size)
            for path in self.folder.rglob("*")
            if path.is_file()
        )
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f'<ETag>"0"</ETag><Size>{size}</Size></Contents>'
            for key, size in found
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        self._answer(200, text.encode())

    def _path(self) -> Path:
        return self.folder / unquote(urlsplit(self.path).path).split("/", 2)[2]

    def _answer(self, status: int, body: bytes, length: int | None = None, **fields: str) -> None:
        time.sleep(LATENCY)
        self.send_response_only(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _keep_pace(self, began: float, nbytes: int) -> None:
        time.sleep(max(0.0, nbytes / RATE - (time.monotonic() - began)))

    def log_message(self, *_: object) -> None:
        pass


_DATED = {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "ETag": '"0"'}


def main() -> None:
    Handler.folder = Path(sys.argv[2])
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
