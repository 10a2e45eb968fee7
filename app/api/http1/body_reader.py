"""A long body, read from the socket to where its reader wants it.

The way through uvicorn copies each byte four times: into a chunk, out of the parser, into a message, and to its place.
A body whose length is known needs no parser. So where a request asks for that with ``read_into``, its connection is
taken from the protocol until the body has ended, and the kernel writes to the place itself. All else stays as ASGI has
it: the layers of the application see a message for each buffer, and the client is held back while nobody asks.
"""

from asyncio import BufferedProtocol
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from .protocol import LimitedProtocol

MIN_BYTES = 256 * 1024
"""Of which a body must be about to come; to hand a connection over and back is not worth it for less."""

_BUFFER = "stateroom.read_into"


def read_into(scope: Mapping[str, Any], buffer: memoryview) -> None:
    """Ask that the next message be read into ``buffer``: if it is, its body is a memoryview, of the part that was
    filled, and that is all of ``buffer`` unless the body ended.
    """
    if "state" in scope:
        scope["state"][_BUFFER] = buffer


class BodyReader(BufferedProtocol):
    """What receives the body of the request ``cycle``, and its connection's protocol from the first buffer on."""

    def __init__(self, connection: "LimitedProtocol", cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self._left: int | None = None  # bytes of the body that are still to come; None: the connection is not ours
        self._buffer: memoryview | None = None
        self._filled = 0
        self._unread = b""

    async def receive(self) -> Message:
        """As ASGI has it."""
        buffer: memoryview | None = self._cycle.scope["state"].pop(_BUFFER, None)
        if self._left is None and buffer is not None and self._may_take_over():
            self._left = self._connection.body_left
            self._connection.transport.set_protocol(self)
        if self._left is None:
            return cast("Message", await self._cycle.receive())
        data = await self._read(self._left, memoryview(bytearray(MIN_BYTES)) if buffer is None else buffer)
        if self._cycle.disconnected or self._cycle.response_complete:
            return {"type": "http.disconnect"}
        if not self._left:
            self._left = None
            self._connection.body_has_ended()
        return {"type": "http.request", "body": data, "more_body": self._cycle.more_body}

    def _may_take_over(self) -> bool:
        """Whether all that is to come is of this body, and long enough."""
        cycle, connection = self._cycle, self._connection
        is_coming = cycle.more_body and not cycle.disconnected and not cycle.waiting_for_100_continue
        return is_coming and cycle is connection.cycle and not cycle.body and connection.body_left >= MIN_BYTES

    async def _read(self, left: int, buffer: memoryview) -> bytes | memoryview:
        """Wait until ``buffer`` is full, or the body has ended, or the connection has."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        cycle, connection = self._cycle, self._connection
        self._buffer, self._filled = buffer[:left], 0
        try:
            if left and not cycle.disconnected and not cycle.response_complete:
                cycle.message_event.clear()
                connection.flow.resume_reading()
                await cycle.message_event.wait()
                cycle.message_event.clear()
        except BaseException:  # cancelled: what has come is for who asks next
            self._unread = bytes(buffer[: self._filled])
            if not connection.transport.is_closing():
                connection.flow.pause_reading()
            raise
        finally:
            self._buffer = None
        return buffer[: self._filled]

    # What the connection calls

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._buffer is None:  # the connection ends, and what still comes is dropped
            return memoryview(bytearray(sizehint if sizehint > 0 else MIN_BYTES))[: self._left or None]
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.hear(nbytes)
        self._left = max(0, (self._left or 0) - nbytes)
        self._filled += nbytes
        if not self._left or (self._buffer is not None and self._filled == len(self._buffer)):
            self._connection.flow.pause_reading()
            self._cycle.message_event.set()

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
