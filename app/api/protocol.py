"""HTTP as uvicorn speaks it, with clients that cannot be trusted to hurry, or to stop.

What uvicorn leaves to a proxy holds here too: a head has to come in time and be of a decent size, a body has to keep
coming, an answer has to be taken. What breaks HTTP is answered by a problem, after the requests that came before it,
and ends the connection. Fields after a chunked body are dropped: uvicorn would make headers of them.

A connection is looked at once a tick. For a chunk, nothing is scheduled and next to nothing done.
"""

import fcntl
import os
import socket
import struct
import termios
from asyncio import BaseTransport, TimerHandle, Transport
from contextlib import suppress
from typing import Any, NoReturn, cast

from httptools import HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from .body_reader import BodyReader
from .limits import Limits, PatientFlow, note_too_slow
from .problems import Problem, of_status

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
MAX_PIPELINED = 16
"""Requests that wait behind the one that is being answered."""

LINGER_SECONDS = 2.0
"""How long a connection that ended with a problem is still listened to: closed on unread bytes, it would be reset, and
the problem might be lost with it.
"""


_OF_A_BODY = frozenset({b"transfer-encoding", b"content-length"})


class _Stop(Exception):
    """No error, but the way out of the parser."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. ``protocol`` makes a class with limits of its own, as uvicorn takes it."""

    limits = Limits()

    def connection_made(self, transport: BaseTransport) -> None:
        transport = cast("Transport", transport)
        super().connection_made(transport)
        now = self.loop.time()
        self.flow: FlowControl = PatientFlow(transport, self.loop.time)
        self.url = b""
        self._running: RequestResponseCycle | None = None  # the newest is ``cycle``
        self._head_since: float | None = now  # None: between requests, or in a body
        self._head_size = 0
        self._asked = False  # a head has begun to come: line ends between requests are none
        self._overhead = 0  # bytes since the last that were of a body
        self.body_left = 0  # bytes of the newest body that the parser has not seen, where its length is known
        self.heard = now
        self._progress: object = None  # of the answer: it moved since it was another one
        self._moved = now
        self._deaf = False  # nothing more is taken from it
        self._ends_at: float | None = None
        self._problem: Problem | None = None
        self._watch: TimerHandle = self.loop.call_later(self.limits.tick, self._look)
        if self.limits.connections is not None and len(self.connections) > self.limits.connections:
            detail = f"there are {self.limits.connections:,} connections already; come back in a while"
            title, headers = "Too many connections at once", {"Retry-After": "5"}
            self._end(Problem(503, title, detail, code="too-many-connections", headers=headers))

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    # What comes

    def data_received(self, data: bytes) -> None:
        self.heard = self.loop.time()
        if self._deaf:
            return
        if self._head_since is None and not self._in_body:
            self._head_since = self.heard
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > MAX_HEAD_BYTES and not self._deaf:
            self._refuse(self._too_large() if self._head_since is not None else None)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._asked = True
        self._head_size = 0
        if self._head_since is None:
            self._head_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return
        self._head_size += len(name) + len(value)
        if len(self.headers) >= MAX_HEADERS:
            self._stop(self._too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head_size + len(self.url) > MAX_HEAD_BYTES:
            self._stop(self._too_large())
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(of_status(400, f"More than {MAX_PIPELINED} requests came ahead of their answers."))
        if self.parser.should_upgrade() and any(name in _OF_A_BODY for name, _ in self.headers):
            # The parser looks for another protocol where the body is.
            self._stop(of_status(400, "A request with a body cannot ask for an Upgrade: only HTTP/1.1 is spoken here."))
        self._head_since = None
        self._asked = False
        self._overhead = 0
        self.body_left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        self.body_left -= len(body)
        if not self.cycle.body:  # taken as it came, a bytes: to collect it in a bytearray copies it twice
            self.cycle.body, body = cast("bytearray", body), b""
        elif isinstance(self.cycle.body, bytes):
            self.cycle.body = bytearray(self.cycle.body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        super().on_message_complete()

    def body_has_ended(self) -> None:
        """For who took the connection, and reads bodies past the parser: take it back, for another head."""
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.transport.set_protocol(self)
        self.cycle.more_body = False
        self.flow.resume_reading()

    @property
    def _in_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body

    def _too_large(self) -> Problem:
        if len(self.url) > MAX_HEAD_BYTES // 2:
            return of_status(414, f"A request has at most {MAX_HEAD_BYTES:,} bytes before its body.")
        limits = f"{MAX_HEAD_BYTES:,} bytes and {MAX_HEADERS} fields"
        return of_status(431, f"A request has at most {limits} before its body.")

    # What is answered

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def reading(scope: Any, _: Any, send: Any) -> None:
            await app(scope, BodyReader(self, cycle).receive, send)

        self._running = cycle
        super()._start_asgi_task(cycle, reading)

    def on_response_complete(self) -> None:
        was_last = not self.pipeline
        super().on_response_complete()
        if was_last and self._deaf and self._problem is not None:
            self._end(self._problem)
        elif was_last and (self._deaf or self._in_body):
            self.transport.close()
        elif self._head_since is not None:
            self._head_since = self.loop.time()  # it was busy: the head that has begun to come has its time now

    # What is refused

    def _stop(self, problem: Problem) -> NoReturn:
        """Out of the parser, whoever has called it."""
        self._problem = problem
        raise _Stop

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for whatever comes out of the parser."""
        self._refuse(self._problem)

    def _refuse(self, problem: Problem | None) -> None:
        """Take nothing more. Requests that came whole before this are answered, and then it ends."""
        problem = problem or of_status(400, "What came is no HTTP/1.1 that can be understood.")
        self._deaf, self._problem = True, problem
        if self._running is None or self._running.response_complete:
            self._end(problem)
        elif self._running is self.cycle and self.cycle.more_body:
            self._cut(problem)
        elif self._in_body:
            self.pipeline.popleft()  # the newest, which will never be whole

    def _cut(self, problem: Problem) -> None:
        """End it while a body is coming. The application sees a client that went away."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        if self.cycle.response_started:
            self.transport.close()
        else:
            self._end(problem)

    def _end(self, problem: Problem) -> None:
        """Say why, and end it."""
        self._deaf = True
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        response = problem.response()
        fields = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body))
        self.transport.write_eof()
        self.flow.resume_reading()
        self._ends_at = self.loop.time() + LINGER_SECONDS

    # Who is too slow

    def _look(self) -> None:
        now = self.loop.time()
        self._watch = self.loop.call_later(self.limits.tick, self._look)
        if self._is_stuck(now):
            self._reset()
        elif self._ends_at is not None and now > self._ends_at:
            self.transport.abort()
        elif self._deaf:
            return
        elif self._running is None or self._running.response_complete:
            if self._head_since is not None and now - self._head_since > self.limits.head_seconds:
                self._end_late_head()
        elif self._is_silent(self._running, now):
            note_too_slow(self._running.scope)
            self._deaf = True
            self._cut(of_status(408, f"No byte of the body came for {self.limits.body_seconds:g} s."))

    def _end_late_head(self) -> None:
        if self._asked:
            self._end(of_status(408, f"The head of a request has to come within {self.limits.head_seconds:g} s."))
        else:
            self.transport.close()  # nothing was asked, so there is nothing to answer

    def _is_silent(self, cycle: RequestResponseCycle, now: float) -> bool:
        """Whether more of the body is wanted, and not held back by us, but does not come."""
        if cycle is not self.cycle or not cycle.more_body or cycle.waiting_for_100_continue or self.flow.read_paused:
            return False
        return now - max(self.heard, cast("PatientFlow", self.flow).wanted) > self.limits.body_seconds

    def _is_stuck(self, now: float) -> bool:
        """Whether the client takes nothing of what is to be sent: not even its kernel does."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._progress = None
            return False
        promised = None if self._running is None else self._running.expected_content_length
        progress = (unsent, promised, self._unacknowledged())
        if progress != self._progress:
            self._progress, self._moved = progress, now
        return now - self._moved > self.limits.send_seconds

    def _reset(self) -> None:
        """End it, and drop what the kernel still holds of the answer: for a client that takes nothing it would keep
        that for a quarter of an hour, long after our own end is closed.
        """
        with suppress(OSError), socket.socket(fileno=os.dup(self._fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _unacknowledged(self) -> int:
        """Bytes in the kernel that the client's has not taken (SIOCOUTQ), which has the number of TIOCOUTQ."""
        with suppress(OSError):
            return int(struct.unpack("i", fcntl.ioctl(self._fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
        return 0

    def _fileno(self) -> int:
        return int(self.transport.get_extra_info("socket").fileno())


def protocol(given: Limits) -> type[LimitedProtocol]:
    class Limited(LimitedProtocol):
        limits = given

    return Limited
