"""HTTP as uvicorn speaks it, with clients that cannot be trusted to hurry, or to stop.

What uvicorn leaves to a proxy holds here too: a head has to come in time and be of a decent size, a body has to keep
coming, an answer has to be taken. What breaks HTTP is answered by a problem, after the requests that came before it,
and ends the connection. Fields after a chunked body are dropped: uvicorn would make headers of them.

A connection is looked at once a tick. For a chunk, nothing is scheduled and next to nothing done.
"""

import fcntl
import os
import re
import socket
import struct
import termios
from asyncio import BaseTransport, CancelledError, TimerHandle, Transport
from contextlib import suppress
from typing import Any, NoReturn, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from ..errors import IncompleteUpload
from .body_reader import BodyReader
from .limits import Limits, Pace, PatientFlow, note_why_cut
from .problems import KINDS, Problem, of_status

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
MAX_PIPELINED = 16
"""Requests that wait behind the one that is being answered."""

LINGER_SECONDS = 2.0
"""How long a connection that ended with a problem is still listened to: closed on unread bytes, it would be reset, and
the problem might be lost with it.
"""

HALF_CLOSED_SECONDS = 2.0
"""How long a request without a body is worked on for a client that has closed its own direction. It may have gone:
that looks the same until something is sent to it, and it must not hold a thread meanwhile.
"""

_VERSIONS = frozenset({"1.0", "1.1"})
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


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
        self._has_body = False  # the newest request
        self.body_left = 0  # bytes of the newest body that the parser has not seen, where its length is known
        self.heard = now
        self._received = 0  # bytes since the pace of the body was looked at
        self._paced: RequestResponseCycle | None = None  # whose body ``_body_pace`` is about
        self._body_pace = self._send_pace = Pace(self.limits.least_rate, 0)
        self._untaken = 0  # bytes of the answer that the client had not taken when that was looked at
        self._looked = now
        self._eof = False  # the client sends nothing more
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
        self.hear(len(data))
        if self._deaf:
            return
        if self._head_since is None and not self._in_body:
            self._head_since = self.heard
        self._overhead += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._overhead > MAX_HEAD_BYTES and not self._deaf:
            self._refuse(self._too_large() if self._head_since is not None else None)

    def hear(self, count: int) -> None:
        """Note that bytes came."""
        self.heard = self.loop.time()
        self._received += count

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                # An Upgrade and a CONNECT are answered like any request, and HTTP/1.1 goes on behind them. For the
                # parser another protocol begins here, so another parser takes over.
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
        """The client sends nothing more, but may still listen: whole requests are answered."""
        self._eof = True
        if self._ends_at is not None or self._running is None or self._running.response_complete:
            return False
        if self._in_body:
            detail = "The connection ended before the body did."
            self._refuse(Problem(400, KINDS[IncompleteUpload].title, detail, "incomplete-upload"))
        elif not self._has_body and not self._running.response_started:
            self.loop.call_later(HALF_CLOSED_SECONDS, self._give_up, self._running)
        self._deaf = True
        return not self.transport.is_closing()

    def _give_up(self, cycle: RequestResponseCycle) -> None:
        """Take the client to be gone unless the answer has begun."""
        if cycle is self._running and not cycle.response_started:
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
            self._stop(self._too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._head_size + len(self.url) > MAX_HEAD_BYTES:
            self._stop(self._too_large())
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(of_status(400, f"More than {MAX_PIPELINED} requests came ahead of their answers."))
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            self._stop(of_status(400, f"HTTP/1.1 is spoken here, and HTTP/1.0; not HTTP/{version}."))
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and codings != [b"chunked"]:
            self._stop(of_status(400, "A body may have the transfer coding chunked, and no other."))
        self.body_left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        has_body = bool(codings or self.body_left)
        if has_body and self.parser.should_upgrade():
            # The parser looks for another protocol where the body is.
            self._stop(of_status(400, "A request with a body cannot ask for an Upgrade: only HTTP/1.1 is spoken here."))
        if not has_body or version == "1.0":  # which has no 100 (Continue): RFC 9110, 10.1.1
            self.expect_100_continue = False
        self._make_relative(version)
        self._head_since = None
        self._asked = False
        self._overhead = 0
        self._has_body = has_body
        super().on_headers_complete()

    def _make_relative(self, version: str) -> None:
        """Turn an absolute target into a path, and its authority into the Host: it wins (RFC 9112, 3.2.2)."""
        absolute = _ABSOLUTE.match(self.url)
        if absolute is None:
            if not self.url.startswith((b"/", b"*")):
                self._stop(of_status(400, "The target of a request is a path, or an http URL."))
            return
        rest = self.url[absolute.end() :]
        self.url = rest if rest.startswith(b"/") else b"/" + rest
        places = [place for place, (name, _) in enumerate(self.headers) if name == b"host"]
        if len(places) == 1:
            self.headers[places[0]] = (b"host", absolute[1])
        elif not places and version == "1.0":
            self.headers.append((b"host", absolute[1]))

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
        """Return the connection to the HTTP parser after a body was read directly from the socket."""
        self.parser = self._new_parser()
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
            try:
                await app(scope, BodyReader(self, cycle).receive, send)
            except CancelledError:  # the server ends, and has waited for long
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
            self._head_since = self.loop.time()  # it was busy: the head that has begun to come has its time now

    # What is refused

    def _stop(self, problem: Problem) -> NoReturn:
        """Out of the parser, whoever has called it."""
        self._problem = problem
        raise _Stop

    def _refuse(self, problem: Problem | None) -> None:
        """Take nothing more. Requests that came whole before this are answered, and then it ends."""
        problem = problem or of_status(400, "The request is not valid HTTP/1.1.")
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
        if self._eof:  # nothing comes any more that could reset it
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._ends_at = self.loop.time() + LINGER_SECONDS

    def end_transfers(self) -> None:
        """The server stops, and has waited long enough: end a body that is still coming, with a problem, and an answer
        that is still being sent. A request that came whole is still worked on.
        """
        running = self._running
        if running is None or running.response_complete or running.response_started:
            if self._ends_at is None:
                (self.transport.abort if self.transport.get_write_buffer_size() else self.transport.close)()
        elif running is self.cycle and running.more_body:
            kind = KINDS["shutting-down"]
            detail = "The server is shutting down, and nothing of the upload was stored. Send it again."
            headers = {"Retry-After": str(kind.retry_after)}
            note_why_cut(running.scope, "shutting-down", detail)
            self._deaf = True
            self._cut(Problem(kind.status, kind.title, detail, "shutting-down", headers=headers))

    # Who is too slow

    def _look(self) -> None:
        now = self.loop.time()
        seconds, self._looked = now - self._looked, now
        self._watch = self.loop.call_later(self.limits.tick, self._look)
        if self._is_stuck(now, seconds):
            self._reset()
        elif self._ends_at is not None and now > self._ends_at:
            self.transport.abort()
        elif self._deaf:
            return
        elif self._running is None or self._running.response_complete:
            if self._head_since is not None and now - self._head_since > self.limits.head_seconds:
                self._end_late_head()
        elif (late := self._why_late(self._running, now, seconds)) is not None:
            note_why_cut(self._running.scope, "request-timeout", late)
            self._deaf = True
            self._cut(of_status(408, late))

    def _end_late_head(self) -> None:
        if self._asked:
            self._end(of_status(408, f"The head of a request has to come within {self.limits.head_seconds:g} s."))
        else:
            self.transport.close()  # nothing was asked, so there is nothing to answer

    def _why_late(self, cycle: RequestResponseCycle, now: float, seconds: float) -> str | None:
        """Why a body that is wanted, and not held back by us, comes too slowly, if it does. ``seconds`` have passed
        since this was looked at.
        """
        if cycle is not self.cycle or not cycle.more_body or cycle.waiting_for_100_continue or self.flow.read_paused:
            return None
        if now - max(self.heard, cast("PatientFlow", self.flow).wanted) > self.limits.body_seconds:
            return f"No byte of the body came for {self.limits.body_seconds:g} s."
        if cycle is not self._paced:
            self._paced, self._body_pace = cycle, Pace(self.limits.least_rate, 2 * self.limits.body_seconds)
        received, self._received = self._received, 0
        if self._body_pace.keeps_up(received, seconds):
            return None
        return f"The body came at less than {self.limits.least_rate:,} bytes a second."

    def _is_stuck(self, now: float, seconds: float) -> bool:
        """Whether the client takes nothing of what is to be sent, not even its kernel does; or next to nothing."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._progress = None
            return False
        promised = 0 if self._running is None else self._running.expected_content_length
        in_kernel = self._unacknowledged()
        progress = (unsent, promised, in_kernel)
        untaken = unsent + promised + in_kernel
        if self._progress is None:
            self._send_pace = Pace(self.limits.least_rate, 2 * self.limits.send_seconds)
            self._untaken = untaken
        taken, self._untaken = max(0, self._untaken - untaken), untaken
        if progress != self._progress:
            self._progress, self._moved = progress, now
        keeps_up = self._send_pace.keeps_up(taken, seconds)
        return now - self._moved > self.limits.send_seconds or not keeps_up

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
