"""``python -m benchmarks.delay SOCKET MILLISECONDS``: a proxy to a Unix socket that adds half a round trip each way.

It prints its port. A process of its own, because its timers must not wait for the work of a client or a server.
"""

import asyncio
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast


class _Half(asyncio.Protocol):
    """One end of a connection. What arrives is written to ``other`` after ``delay`` seconds."""

    def __init__(self, delay: float, other: asyncio.Transport | None = None) -> None:
        self._delay = delay
        self.other = other
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            asyncio.get_running_loop().call_later(self._delay, self.other.write, data)

    def connection_lost(self, _: Exception | None) -> None:
        if self.other is not None:
            asyncio.get_running_loop().call_later(self._delay, self.other.close)


class _Front(_Half):
    """The end of the client. It is not read from until the other end is there."""

    def __init__(self, delay: float, path: str) -> None:
        super().__init__(delay)
        self._path = path

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.transport is not None:
            self.transport.pause_reading()
            self._connecting = asyncio.create_task(self._connect(self.transport))

    async def _connect(self, client: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        self.other, _ = await loop.create_unix_connection(lambda: _Half(self._delay, client), self._path)
        client.resume_reading()


async def _serve(path: str, delay: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(lambda: _Front(delay, path), sock=listener)
    print(listener.getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def delayed(path: str, milliseconds: float) -> Iterator[int]:
    """Run the proxy to the Unix socket ``path`` until the block ends, and yield its port."""
    command = [sys.executable, "-m", "benchmarks.delay", path, str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


if __name__ == "__main__":
    # select waits for microseconds, epoll for whole milliseconds
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_serve(sys.argv[1], float(sys.argv[2]) / 2000))
