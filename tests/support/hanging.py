"""A TCP port in front of a server that stops passing bytes on, as a machine without power would."""

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress


class HangingPort:
    """A port of this machine. While it ``hangs``, it takes connections and bytes, and nothing comes back."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._passing = threading.Event()
        self._passing.set()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    def hang(self) -> None:
        self._passing.clear()

    def go_on(self) -> None:
        self._passing.set()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._passing.set()

    def _carry(self, client: socket.socket) -> None:
        with suppress(OSError), closing(client):
            self._passing.wait()
            with self._connect() as server, selectors.DefaultSelector() as selector:
                selector.register(client, selectors.EVENT_READ, server)
                selector.register(server, selectors.EVENT_READ, client)
                while True:
                    for key, _ in selector.select():
                        data = key.fileobj.recv(65536)
                        self._passing.wait()
                        if not data:
                            return
                        key.data.sendall(data)


@contextmanager
def hanging_port(connect: Callable[[], socket.socket]) -> Iterator[HangingPort]:
    """Yield a port in front of the server that ``connect`` connects to."""
    port = HangingPort(connect)
    threading.Thread(target=port.accept, daemon=True).start()
    try:
        yield port
    finally:
        port.close()
