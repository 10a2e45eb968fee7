"""A relay in front of a real server that changes the answers' bytes as a test wants."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

Fault = Callable[[socket.socket, int, bytes], bytes | None]
"""Called as ``fault(client, sent, data)`` for what an answer to a ranged request goes on with after ``sent`` bytes;
gives what to pass on, or None to lose the connection.
"""


@dataclass
class Faulty:
    """``faults`` are for the first ranged requests whose range is long, in turn; ``ranges`` are all that were asked."""

    url: str
    faults: list[Fault]
    ranges: list[tuple[int, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


LONG = 1024 * 1024


@contextmanager
def faulty(port: Callable[[], int], *faults: Fault) -> Iterator[Faulty]:
    """``port()`` is asked for each connection: a server may come back on another."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        relay = Faulty(f"http://127.0.0.1:{listener.getsockname()[1]}", list(faults))

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=_carry, args=(relay, client, port), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield relay
        listener.shutdown(socket.SHUT_RDWR)


def _carry(relay: Faulty, client: socket.socket, port: Callable[[], int]) -> None:
    """One request after another, as a client without pipelining sends them."""
    with closing(client), suppress(OSError), closing(socket.create_connection(("127.0.0.1", port()))) as server:
        for _ in count():
            head = _head(client)
            if not head:
                return
            found = re.search(rb"\r\nRange: bytes=(\d+)-(\d+)\r\n", head)
            fault = None
            if found is not None:
                start, end = int(found[1]), int(found[2]) + 1
                with relay.lock:
                    relay.ranges.append((start, end))
                    if end - start >= LONG and relay.faults:
                        fault = relay.faults.pop(0)
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            server.sendall(head + _exactly(client, int(length[1]) if length else 0))
            if not _answer(server, client, fault):
                return


def _answer(server: socket.socket, client: socket.socket, fault: Fault | None) -> bool:
    head = _head(server)
    if not head:
        return False
    client.sendall(head)
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    size, sent = int(length[1]) if length else 0, 0
    while sent < size:
        data = server.recv(min(65536, size - sent))
        if not data:
            return False
        passed_on = data if fault is None else fault(client, sent, data)
        if passed_on is None:
            return False
        client.sendall(passed_on)
        sent += len(data)
    return True


def _head(source: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = source.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += source.recv(size - len(data))
    return data


def breaks_after(size: int) -> Fault:
    return lambda _client, sent, data: data if sent < size else None


def damages_at(place: int) -> Fault:
    """Flips a bit of the byte at ``place`` of the answer."""

    def fault(_client: socket.socket, sent: int, data: bytes) -> bytes:
        if not sent <= place < sent + len(data):
            return data
        changed = bytearray(data)
        changed[place - sent] ^= 1
        return bytes(changed)

    return fault


def stalls_after(size: int, until: threading.Event) -> Fault:
    def fault(_client: socket.socket, sent: int, data: bytes) -> bytes | None:
        if sent < size:
            return data
        until.wait(60)
        return None

    return fault
