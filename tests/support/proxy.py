"""A real TCP proxy in front of a server that loses connections at chosen moments."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

Cut = Callable[[bytearray, bytearray], bool]
"""Called with all bytes from the client and all bytes from the server; returns whether the connection is lost now. The
last bytes have been passed on to the server, but not to the client.
"""


def body_half_sent(asked: bytearray, _: bytearray) -> bool:
    head, _, body = asked.partition(b"\r\n\r\n")
    return len(body) >= _length(head) // 2 > 0


def body_sent(asked: bytearray, _: bytearray) -> bool:
    """Cut when the server has the whole body, and may store it."""
    head, end, body = asked.partition(b"\r\n\r\n")
    return bool(end) and len(body) == _length(head)


def answered(_: bytearray, answer: bytearray) -> bool:
    """Cut when the server has answered, so that its answer is lost."""
    return bool(answer)


def _length(head: bytearray) -> int:
    fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return next((int(value) for name, _, value in fields if name == b"content-length"), 0)


@dataclass
class Proxy:
    """A running proxy. ``cuts`` apply to the first connections, in turn; later connections are left alone."""

    url: str
    cuts: list[Cut]
    lost: list[Cut] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def loses(self, cut: Cut, asked: bytearray, answer: bytearray) -> bool:
        """Tell whether a connection is lost now; each cut loses one connection."""
        if cut in self.lost or not cut(asked, answer):
            return False
        with self._lock:
            if cut in self.lost:
                return False
            self.lost.append(cut)
            return True


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
                if cut is not None and proxy.loses(cut, seen[client], seen[server]):
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
