"""Listeners: they tell a process that there are new events in the catalog. News may get lost; readers look by
themselves, too, only less often.

SQLite tells nobody of a commit. So each listener is a datagram socket in a folder beside the database, and whoever has
committed events sends one byte to each socket there. That reaches every process of the machine, as SQLite does.
"""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from ..errors import StoreError
from ..private import FOLDER, shut

_SUFFIX = "-listeners"


class Listener(Protocol):
    fd: int
    """A descriptor that becomes readable when there is news, or no more can come."""

    def hear(self) -> bool:
        """Take the news that has arrived, without waiting. Return False if no more can come."""

    def close(self) -> None: ...


class SocketListener:
    """A Listener for the SQLite database at the path ``database``. Raises StoreError if there can be none."""

    def __init__(self, database: Path) -> None:
        self._folder = _folder_of(database)
        self._name = secrets.token_hex(8)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._folder.mkdir(FOLDER, exist_ok=True)
            shut(self._folder)
            with _short(self._folder) as short:
                self._socket.bind(f"{short}/{self._name}")
        except OSError as error:
            self._socket.close()
            raise StoreError(f"cannot listen for events in {self._folder}: {error.strerror}") from error
        self.fd = self._socket.fileno()

    def hear(self) -> bool:
        with suppress(BlockingIOError):
            while self._socket.recv(1):
                pass
        return True

    def close(self) -> None:
        self._socket.close()
        (self._folder / self._name).unlink(missing_ok=True)


def tell_listeners(database: Path) -> None:
    """Tell all SocketListeners of ``database`` that there is news. Never fails and never waits; removes the sockets of
    processes that have died.
    """
    with suppress(OSError), _short(_folder_of(database)) as folder:
        listening = list(Path(folder).iterdir())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            for path in listening:
                try:
                    sender.sendto(b"!", str(path))
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)
                except OSError:  # its buffer is full: news waits there already
                    continue


def _folder_of(database: Path) -> Path:
    return database.with_name(f"{database.name}{_SUFFIX}")


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A short path of ``folder``: the address of a socket has room for 107 bytes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
