"""A real TCP proxy in front of a server, that loses connections as it is told."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

Cut = Callable[[bytearray, bytearray], bool]
"""Whether the connection is lost now, given all that came from the client, and all that came from the server: what
came last has been passed on to the server, but not to the client.
"""


def body_half_sent(asked: bytearray, _: bytearray) -> bool:
    head, _, body = asked.partition(b"\r\n\r\n")
    return len(body) >= _length(head) // 2 > 0


def body_sent(asked: bytearray, _: bytearray) -> bool:
    """The server has it all, and may do with it what it likes."""
    head, end, body = asked.partition(b"\r\n\r\n")
    return bool(end) and len(body) == _length(head)


def answered(_: bytearray, answer: bytearray) -> bool:
    """The server has done its work and says so; nobody hears it."""
    return bool(answer)


def _length(head: bytearray) -> int:
    fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return next((int(value) for name, _, value in fields if name == b"content-length"), 0)


@dataclass
class Proxy:
    """``cuts`` are for the first connections, in turn; those after them are left alone."""

    url: str
    cuts: list[Cut]
    lost: list[Cut] = field(default_factory=list)


@contextmanager
def proxy_to(port: int, *cuts: Cut) -> Iterator[Proxy]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        proxy = Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}", list(cuts))

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    cut = proxy.cuts.pop(0) if proxy.cuts else None
                    threading.Thread(target=_carry, args=(proxy, client, port, cut), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)


def _carry(proxy: Proxy, client: socket.socket, port: int, cut: Cut | None) -> None:
    server = socket.create_connection(("127.0.0.1", port))
    seen = {client: bytearray(), server: bytearray()}

    def lose() -> None:
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                seen[source] += data
                if target is server:
                    server.sendall(data)
                if cut is not None and cut not in proxy.lost and cut(seen[client], seen[server]):
                    proxy.lost.append(cut)
                    break
                if target is client:
                    client.sendall(data)
        lose()

    back = threading.Thread(target=pass_on, args=(server, client), daemon=True)
    back.start()
    pass_on(client, server)
    back.join()
    client.close()
    server.close()
