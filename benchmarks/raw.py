"""The machine's limit: sockets and files with nothing between them, in a separate process."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.wire import send_file, touched


@contextmanager
def raw_peer(verb: str, path: Path) -> Iterator[int]:
    """Start a process and yield its port. On each connection it sends the file ``path`` (``send``), or writes the
    received bytes to a new file in the folder ``path`` (``receive``).
    """
    command = [sys.executable, "-m", "benchmarks.raw", verb, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def raw_download(port: int, into: memoryview) -> float:
    """Seconds to receive ``len(into)`` bytes from a raw sender."""
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as wire:
        done = 0
        while done < len(into):
            done += wire.recv_into(into[done:])
    return time.perf_counter() - started


def raw_upload(port: int, file: Path) -> float:
    """Seconds until a raw receiver confirms that it has written the file."""
    started, size = time.perf_counter(), file.stat().st_size
    with socket.create_connection(("127.0.0.1", port)) as wire, file.open("rb") as source:
        wire.sendall(size.to_bytes(8, "big"))
        send_file(wire, source.fileno(), size)
        wire.recv(1)
        seconds = time.perf_counter() - started
        wire.recv(1)  # end of the connection: the receiver has removed the file
    return seconds


def serve_raw(verb: str, path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                if verb == "send":
                    with path.open("rb") as source:
                        send_file(connection, source.fileno(), path.stat().st_size)
                else:
                    receive(connection, path / "received")


def receive(connection: socket.socket, file: Path) -> None:
    buffer = touched(1 << 20)
    left = int.from_bytes(connection.recv(8), "big")
    with file.open("wb", buffering=0) as target:
        while left and (count := connection.recv_into(buffer)):
            target.write(buffer[:count])
            left -= count
    connection.sendall(b"k")
    file.unlink()


if __name__ == "__main__":
    os.setpgid(0, 0)  # keeps Ctrl+C from this process; the runner ends it
    serve_raw(sys.argv[1], Path(sys.argv[2]))
