"""A proxy in front of PostgreSQL that resets all connections at a chosen statement.

It reads as much of the protocol as it takes to tell messages apart and to count statements:
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

STATEMENTS = {b"E", b"Q"}
"""Types of the client's messages that execute a statement: Execute and Query."""

COMPLETIONS = {b"C", b"I", b"s"}
"""Types of the server's messages that end a statement's result; an error ends those of a whole pipeline."""

ERROR = b"E"
FLUSH = b"H" + struct.pack("!I", 4)
"""Makes the server send the results that it has; within a pipeline it would wait for the end."""

NO_LINGER = struct.pack("ii", 1, 0)


class Edge(Enum):
    BEFORE = auto()
    """The statement does not reach the database."""
    AFTER = auto()
    """The statement is executed, and its result does not reach the client."""


@dataclass(slots=True, eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    sent: int = 0
    completed: int = 0
    is_withheld: bool = False

    def reset(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            end.transport.abort()


@dataclass(slots=True, eq=False)
class PostgresProxy:
    """A port of this machine in front of the PostgreSQL that listens on the Unix socket ``path``."""

    path: Path
    port: int = 0
    _left: int | None = None
    _edge: Edge = Edge.BEFORE
    _open: set[_Connection] = field(default_factory=set)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable&gssencmode=disable"

    def cut(self, statement: int, edge: Edge) -> None:
        """Reset all connections at the ``statement``-th statement from now, counted from 1."""
        self._edge, self._left = edge, statement

    def stop_cutting(self) -> bool:
        """Let all further statements pass. Return whether the connections have been reset."""
        was_cut, self._left = self._left is None, None
        return was_cut

    async def carry(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        server_reader, server = await asyncio.open_unix_connection(self.path)
        connection = _Connection(client, server)
        self._open.add(connection)
        directions = [
            asyncio.ensure_future(self._pass_requests(connection, client_reader)),
            asyncio.ensure_future(self._pass_results(connection, server_reader)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            self._open.discard(connection)
            client.close()
            server.close()

    async def _pass_requests(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        length = await reader.readexactly(4)  # the first message has no type
        connection.server.write(length + await reader.readexactly(int.from_bytes(length) - 4))
        while True:
            kind, message = await _message(reader)
            if kind in STATEMENTS:
                edge = self._edge_here()
                if edge is Edge.BEFORE:
                    return self.reset()
                if edge is Edge.AFTER:
                    connection.is_withheld = True
                    message += FLUSH
                connection.sent += 1
            connection.server.write(message)
            await connection.server.drain()

    async def _pass_results(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        while True:
            kind, message = await _message(reader)
            connection.completed += kind in COMPLETIONS
            if not connection.is_withheld:
                connection.client.write(message)
                await connection.client.drain()
            elif kind == ERROR or connection.completed >= connection.sent:
                return self.reset()

    def _edge_here(self) -> Edge | None:
        """Count a statement. Return the edge of it at which the connections are lost, if they are."""
        if self._left is None:
            return None
        self._left -= 1
        if self._left:
            return None
        self._left = None
        return self._edge

    def reset(self) -> None:
        """Reset all connections. Only for the thread of the proxy."""
        for connection in self._open:
            connection.reset()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a message. Return its type and the whole of it."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


@contextmanager
def postgres_proxy(path: Path) -> Iterator[PostgresProxy]:
    """Run a proxy in front of the PostgreSQL at the Unix socket ``path`` until the block ends."""
    proxy = PostgresProxy(path)
    loop = asyncio.new_event_loop()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(proxy.carry, "127.0.0.1", 0)

    async def end(listening: asyncio.Server) -> None:
        listening.close()
        proxy.reset()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    listening = loop.run_until_complete(listen())
    proxy.port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(end(listening), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
