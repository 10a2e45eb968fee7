"""A network that is slow for as long as a test wants it to be."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BLOCK = 16 * 1024
PAUSE = 0.05
SHORT = 4 * 1024
"""Bytes of an answer that comes at once."""


class Relay:
    """Passes connections on to a server; what the server sends comes a block at a time until ``hurry()``."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._hurry = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def hurry(self) -> None:
        self._hurry.set()

    def close(self) -> None:
        self.hurry()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                threading.Thread(target=self._pass_on, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(far, near, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, slowly: bool) -> None:
        with suppress(OSError):
            while data := source.recv(BLOCK):
                sink.sendall(data)
                if slowly and len(data) > SHORT:
                    self._hurry.wait(PAUSE)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def slow_relay(port: int) -> Iterator[Relay]:
    relay = Relay(port)
    try:
        yield relay
    finally:
        relay.close()
