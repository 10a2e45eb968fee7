"""uvicorn's HTTP protocol, with limits for clients that are slow or never stop.

These limits are ones that uvicorn leaves to a proxy: a head has to arrive in time and within a size, a body has to keep
arriving, a response has to be taken. Invalid HTTP is answered with a problem, after the requests before it, and ends
the connection. Trailer fields after a chunked body are dropped: uvicorn would make headers of them.

A connection is checked once a tick. For a chunk, nothing is scheduled and almost nothing done.
"""

from asyncio import BaseTransport, CancelledError, TimerHandle, Transport
from typing import Any, NoReturn, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ..problems import Problem, of_status
from .body_reader import BodyReader, is_stored
from .head import MAX_HEAD_BYTES, MAX_HEADERS, BadHead, judged
from .limits import Limits, PatientFlow, note_why_cut
from .refusals import ENDED_EARLY, NOT_HTTP, SHUTTING_DOWN, last_answer, too_large, too_many_connections
from .transfers import Transfers

MAX_PIPELINED = 16
"""Most requests that may wait behind the one that is being answered."""

LINGER_SECONDS = 2.0
"""Seconds to go on reading from a connection that ended with a problem: closing it on unread bytes would reset it, and
the problem might be lost.
"""

HALF_CLOSED_SECONDS = 2.0
"""Seconds to work on a request without a body for a client that sends no more, because it may have gone, too."""


class _Stop(Exception):
    """Control flow out of the parser, not an error."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. ``protocol`` makes a subclass with its own limits, because uvicorn takes a class."""

    limits = Limits()

    def connection_made(self, transport: BaseTransport) -> None:
        transport = cast("Transport", transport)
        super().connection_made(transport)
        now = self.loop.time()
        flow = PatientFlow(transport, self.loop.time)
        self.flow: FlowControl = flow
        self._transfers = Transfers(self.limits, transport, flow, now)
        self.url = b""
        self._running: RequestResponseCycle | None = None  # the newest is ``cycle``
        self._head_since: float | None = now  # None: between requests, or in a body
        self._head_size = 0
        self._asked = False  # a head has begun; line ends between requests do not count
        self._overhead = 0  # bytes since the last byte of a body
        self._has_body = False  # of the newest request
        self.body_left = 0  # bytes of the newest body that the parser has not seen, where its length is known
        self._looked = now
        self._eof = False  # the client sends nothing more
        self._deaf = False  # no more bytes are taken from it
        self._ends_at: float | None = None
        self._problem: Problem | None = None
        self._watch: TimerHandle = self.loop.call_later(self.limits.tick, self._look)
        if self.limits.connections is not None and len(self.connections) > self.limits.connections:
            self._end(too_many_connections(self.limits.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    # Incoming bytes

    def data_received(self, data: bytes) -> None:
        now = self.hear(len(data))
        if self._deaf:
            return
        if self._head_since is None and not self._in_body:
            self._head_since = now
        self._overhead += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._overhead > MAX_HEAD_BYTES and not self._deaf:
            self._refuse(too_large(self.url) if self._head_since is not None else None)

    def hear(self, count: int) -> float:
        """Note that bytes arrived, and return the time."""
        now = self.loop.time()
        self._transfers.hear(count, now)
        return now

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                # An Upgrade and a CONNECT are answered like any request, and HTTP/1.1 goes on after them. This parser
                # expects another protocol now, so a new one takes over.
                data = data[upgrade.args[0] :]
                self.parser = self._new_parser()
            except HttpParserError:
                self._refuse(self._problem)
                return
            else:
                return

    def _new_parser(self) -> HttpRequestParser:
        parser = HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return parser

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio has it so: True keeps the connection
        """Answer the requests that are whole: the client sends nothing more, but may still listen."""
        self._eof = True
        if self._ends_at is not None or self._running is None or self._running.response_complete:
            return False
        if self._in_body:
            self._refuse(ENDED_EARLY)
        elif not self._running.response_started:
            self.loop.call_later(HALF_CLOSED_SECONDS, self._give_up, self._running, self._has_body)
        self._deaf = True
        return not self.transport.is_closing()

    def _give_up(self, cycle: RequestResponseCycle, has_body: bool) -> None:
        """Abort the connection unless the response has begun or a body was sent for it: the client counts as gone."""
        if cycle is self._running and not cycle.response_started and not (has_body and is_stored(cycle.scope)):
            self.transport.abort()

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
            self._stop(too_large(self.url))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head_size + len(self.url) > MAX_HEAD_BYTES:
            self._stop(too_large(self.url))
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(of_status(400, f"More than {MAX_PIPELINED} pipelined requests are waiting for a response."))
        version = self.parser.get_http_version()
        try:
            head = judged(version, self.url, self.headers, upgrade=self.parser.should_upgrade())
        except BadHead as error:
            self._stop(of_status(400, str(error)))
        self.url, self.headers[:] = head.target, head.fields
        self.body_left, self._has_body = head.length, head.has_body
        if not head.has_body or version == "1.0":  # 1.0 has no 100 (Continue): RFC 9110, 10.1.1
            self.expect_100_continue = False
        self._head_since = None
        self._asked = False
        self._overhead = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        self.body_left -= len(body)
        if not self.cycle.body:  # kept as bytes: collecting it in a bytearray copies it twice
            self.cycle.body, body = cast("bytearray", body), b""
        elif isinstance(self.cycle.body, bytes):
            self.cycle.body = bytearray(self.cycle.body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        super().on_message_complete()

    def body_has_ended(self) -> None:
        """Return the connection to the HTTP parser after a body was read directly from the socket."""
        self.parser = self._new_parser()
        self.transport.set_protocol(self)
        self.cycle.more_body = False
        self.flow.resume_reading()

    @property
    def _in_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body

    # Responses

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def reading(scope: Any, _: Any, send: Any) -> None:
            try:
                await app(scope, BodyReader(self, cycle).receive, send)
            except CancelledError:  # the server stops, and has waited long enough
                cycle.disconnected = True
                self.transport.abort()

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
            self._head_since = self.loop.time()  # it was busy: the time of the next head starts now

    # Refusals

    def _stop(self, problem: Problem) -> NoReturn:
        """Leave the parser with ``problem``."""
        self._problem = problem
        raise _Stop

    def _refuse(self, problem: Problem | None) -> None:
        """Take no more bytes. Requests that arrived whole are answered, then the connection ends."""
        problem = problem or NOT_HTTP
        self._deaf, self._problem = True, problem
        if self._running is None or self._running.response_complete:
            self._end(problem)
        elif self._running is self.cycle and self.cycle.more_body:
            self._cut(problem)
        elif self._in_body:
            self.pipeline.popleft()  # the newest request, which stays incomplete

    def _cut(self, problem: Problem) -> None:
        """End the connection while a body is arriving. The application sees a disconnect."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        if self.cycle.response_started:
            self.transport.close()
        else:
            self._end(problem, is_logged=True)

    def _end(self, problem: Problem, *, is_logged: bool = False) -> None:
        """Send ``problem``, and end the connection. The application logs a request that it has begun to answer."""
        self._deaf = True
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self.transport.write(last_answer(problem, self.server_state.default_headers, self.client, is_logged=is_logged))
        if self._eof:  # no more bytes arrive that could reset it
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._ends_at = self.loop.time() + LINGER_SECONDS

    def end_transfers(self) -> None:
        """End the transfers of a stopping server: a body that is still arriving, with a problem, and a response that is
        still being sent. A request that arrived whole is still worked on.
        """
        running = self._running
        if running is None or running.response_started:
            (self.transport.abort if self.transport.get_write_buffer_size() else self.transport.close)()
        elif running is self.cycle and running.more_body and self._ends_at is None:
            self._end_body(running, SHUTTING_DOWN)

    def _end_body(self, running: RequestResponseCycle, problem: Problem) -> None:
        note_why_cut(running.scope, problem.code, problem.detail)
        self._deaf = True
        self._cut(problem)

    # Slow clients

    def _look(self) -> None:
        now = self.loop.time()
        seconds, self._looked = now - self._looked, now
        self._watch = self.loop.call_later(self.limits.tick, self._look)
        if self._transfers.is_stuck(self._running, now, seconds):
            self._transfers.reset()
        elif self._ends_at is not None and now > self._ends_at:
            self.transport.abort()
        elif self._deaf:
            return
        elif self._running is None or self._running.response_complete:
            if self._head_since is not None and now - self._head_since > self.limits.head_seconds:
                self._end_late_head()
        elif self._running is self.cycle and (late := self._transfers.why_late(self.cycle, now, seconds)):
            self._end_body(self._running, of_status(408, late))

    def _end_late_head(self) -> None:
        if self._asked:
            self._end(of_status(408, f"The headers did not arrive within {self.limits.head_seconds:g} s."))
        else:
            self.transport.close()  # nothing was asked, so there is nothing to answer


def protocol(given: Limits) -> type[LimitedProtocol]:
    class Limited(LimitedProtocol):
        limits = given

    return Limited
