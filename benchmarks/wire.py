"""A small HTTP/1.1 client that counts every byte and reads into memory touched before.

The client must cost less than the servers it measures: first-touch page faults alone would cost more than the network.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

HEAD_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with ``nbytes`` of body. Times run from just before the request was sent to the first byte of the body
    (``first_byte``) and to its last byte (``seconds``). ``first_nbytes`` arrived with the first byte.
    """

    status: int
    nbytes: int
    first_nbytes: int
    first_byte: float
    seconds: float

    @property
    def rate(self) -> float:
        """The streaming rate in GB/s, without the time to the first byte and the bytes that arrived with it."""
        return (self.nbytes - self.first_nbytes) / (self.seconds - self.first_byte) / 1e9


class Connection:
    """One connection, kept alive. ``on_the_wire`` counts the bytes of requests and answers, heads included."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host = f"{address.hostname}:{address.port}"
        self._socket = socket.create_connection((address.hostname or "", address.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = memoryview(bytearray(HEAD_SIZE))
        self.on_the_wire = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._socket.close()

    def get(self, path: str, into: memoryview) -> Answer:
        """Read the answer's body to the start of ``into``."""
        started = time.perf_counter()
        self._send(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        return self._receive(into, started)

    def first_byte(self, path: str) -> float:
        """Return the seconds until the first byte of the answer's body. The connection cannot be used afterwards."""
        started = time.perf_counter()
        self._send(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        status, _, first = self._receive_head()
        if status >= 300:
            raise RuntimeError(f"answered {status}")
        if not first:
            self._recv(self._head)
        return time.perf_counter() - started

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Post a JSON body and return the JSON answer."""
        data, into = json.dumps(body).encode(), memoryview(bytearray(1 << 20))
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        self._send(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = self._receive(into, time.perf_counter())
        parsed: dict[str, Any] = json.loads(bytes(into[: answer.nbytes]))
        return parsed

    def put(self, path: str, file: Path) -> Answer:
        """Send a file as the body, with ``sendfile``."""
        started, size = time.perf_counter(), file.stat().st_size
        self._send(f"PUT {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {size}\r\n\r\n".encode())
        with file.open("rb") as source:
            send_file(self._socket, source.fileno(), size)
        self.on_the_wire += size
        return self._receive(memoryview(bytearray(1 << 20)), started)

    def upload(self, path: str, data: bytes) -> Answer:
        """Send ``data`` as the body, in one piece with the head."""
        started = time.perf_counter()
        self._send(f"PUT {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        return self._receive(memoryview(bytearray(1 << 16)), started)

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)
        self.on_the_wire += len(data)

    def _receive_head(self) -> tuple[int, int, memoryview]:
        """Return the status of the answer, the length of its body, and the bytes of it that came with the head."""
        got, end = 0, -1
        while end < 0:
            got += self._recv(self._head[got:])
            end = bytes(self._head[:got]).find(b"\r\n\r\n")
        return *_parse_head(bytes(self._head[:end])), self._head[end + 4 : got]

    def _receive(self, into: memoryview, started: float) -> Answer:
        status, size, begin = self._receive_head()
        first_byte = time.perf_counter() - started
        if size > len(into):
            raise ValueError(f"{size} bytes do not fit into {len(into)}")
        first = len(begin)
        into[:first] = begin
        if not first and size:
            first = self._recv(into[:size])
            first_byte = time.perf_counter() - started
        done = first
        while done < size:
            done += self._recv(into[done:size])
        answer = Answer(status, size, first, first_byte, time.perf_counter() - started)
        if status >= 300:
            raise RuntimeError(f"answered {status}: {bytes(into[: min(size, 1000)])!r}")
        return answer

    def _recv(self, into: memoryview) -> int:
        count = self._socket.recv_into(into)
        if not count:
            raise ConnectionError("the server closed the connection")
        self.on_the_wire += count
        return count


def _parse_head(head: bytes) -> tuple[int, int]:
    """Status and Content-Length; an answer without one (nginx's 201) has no body."""
    lines = head.decode("latin1").split("\r\n")
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            return int(lines[0].split()[1]), int(value)
    return int(lines[0].split()[1]), 0


def send_file(to: socket.socket, fd: int, size: int) -> None:
    """Send all ``size`` bytes of an open file from the page cache to a blocking socket."""
    done = 0
    while done < size:
        done += os.sendfile(to.fileno(), fd, done, size - done)


def touched(size: int) -> memoryview:
    """Memory with all pages already faulted in."""
    memory = bytearray(size)
    memory[::4096] = b"\1" * len(range(0, size, 4096))
    return memoryview(memory)


def memory_for(*files: Path) -> memoryview:
    """Touched memory with room for any of the files or a file derived from it, which may have a longer pickle."""
    return touched(max(file.stat().st_size for file in files) * 11 // 10)
