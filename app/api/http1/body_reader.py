"""Long bodies, read from the socket straight into the reader's buffer.

The way through uvicorn copies each byte four times: into a chunk, out of the parser, into a message, and to its place.
A body of known length needs no parser. When a request calls ``read_into``, its connection is taken from the protocol
until the body has ended, and the kernel writes into the buffer. The rest stays plain ASGI: middleware sees a message
for each buffer, and the client is held back while nobody receives.
"""

from asyncio import BufferedProtocol
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from .protocol import LimitedProtocol

MIN_BYTES = 256 * 1024
"""Fewest bytes still to arrive for which handing a connection over and back is worth it."""

_BUFFER = "stateroom.read_into"
_GIVEN_UP = "stateroom.given_up"


def read_into(scope: Mapping[str, Any], buffer: memoryview) -> None:
    """Ask for the next message to be read into ``buffer``. If it is, its body is a memoryview of the filled part, which
    is all of ``buffer`` unless the body ended.
    """
    if "state" in scope:
        scope["state"][_BUFFER] = buffer


def give_up_with_the_client(scope: Mapping[str, Any]) -> None:
    """Say that the request is not worth finishing once its client has closed its sending direction, though it has a
    body: the body is small, and the work is long.
    """
    if "state" in scope:
        scope["state"][_GIVEN_UP] = True


def is_stored(scope: Mapping[str, Any]) -> bool:
    """Tell whether a request with a body is finished although its client may have gone, as an upload is."""
    return _GIVEN_UP not in scope.get("state", {})


class BodyReader(BufferedProtocol):
    """The receiver of the body of ``cycle``, and the protocol of its connection from the first buffer on."""

    def __init__(self, connection: "LimitedProtocol", cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self._left: int | None = None  # bytes of the body that are still to come; None: the connection is not ours
        self._buffer: memoryview | None = None
        self._filled = 0
        self._unread = b""

    async def receive(self) -> Message:
        """Receive an ASGI message."""
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
        """Return whether the next bytes all belong to this body, and are enough."""
        cycle, connection = self._cycle, self._connection
        is_coming = cycle.more_body and not cycle.disconnected and not cycle.waiting_for_100_continue
        return is_coming and cycle is connection.cycle and not cycle.body and connection.body_left >= MIN_BYTES

    async def _read(self, left: int, buffer: memoryview) -> bytes | memoryview:
        """Wait until ``buffer`` is full, or the body or the connection has ended."""
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
        except BaseException:  # cancelled: the next call gets these bytes
            self._unread = bytes(buffer[: self._filled])
            if not connection.transport.is_closing():
                connection.flow.pause_reading()
            raise
        finally:
            self._buffer = None
        return buffer[: self._filled]

    # Called by the connection

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._buffer is None:  # the connection is ending: drop further bytes
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
