"""The progress of one connection's transfers: when bytes arrived, and when some were taken."""

import fcntl
import os
import socket
import struct
import termios
from asyncio import Transport
from contextlib import suppress

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from .limits import Limits, Pace, PatientFlow


class Transfers:
    """The detector of a slow client, asked once a tick. ``heard`` is when the client's last byte arrived."""

    def __init__(self, limits: Limits, transport: Transport, flow: PatientFlow, now: float) -> None:
        self.heard = now
        self._limits = limits
        self._transport = transport
        self._flow = flow
        self._received = 0  # bytes since the last check of the body's pace
        self._paced: RequestResponseCycle | None = None  # the request that ``_body_pace`` measures
        self._body_pace = self._send_pace = Pace(limits.least_rate, 0)
        self._progress: object = None  # of the response, as of ``_moved``
        self._moved = now
        self._untaken = 0  # bytes of the response that the client had not taken at the last check

    def hear(self, count: int, now: float) -> None:
        """Note that bytes arrived."""
        self.heard = now
        self._received += count

    def why_late(self, cycle: RequestResponseCycle, now: float, seconds: float) -> str | None:
        """Say why an expected body arrives too slowly; None if it does not, or if we hold it back. ``seconds`` have
        passed since the last check.
        """
        if not cycle.more_body or cycle.waiting_for_100_continue or self._flow.read_paused:
            return None
        if now - max(self.heard, self._flow.wanted) > self._limits.body_seconds:
            return f"No bytes of the body arrived for {self._limits.body_seconds:g} s."
        if cycle is not self._paced:
            self._paced, self._body_pace = cycle, Pace(self._limits.least_rate, 2 * self._limits.body_seconds)
        received, self._received = self._received, 0
        if self._body_pace.keeps_up(received, seconds):
            return None
        return f"The body arrived at less than {self._limits.least_rate:,} bytes a second, the lowest rate accepted."

    def is_stuck(self, cycle: RequestResponseCycle | None, now: float, seconds: float) -> bool:
        """Tell whether the client, its kernel included, takes no bytes of the response, or almost none."""
        unsent = self._transport.get_write_buffer_size()
        if not unsent:
            self._progress = None
            return False
        progress = (unsent, 0 if cycle is None else cycle.expected_content_length, self._unacknowledged())
        untaken = sum(progress)
        if self._progress is None:
            self._send_pace = Pace(self._limits.least_rate, 2 * self._limits.send_seconds)
            self._untaken = untaken
        taken, self._untaken = max(0, self._untaken - untaken), untaken
        if progress != self._progress:
            self._progress, self._moved = progress, now
        keeps_up = self._send_pace.keeps_up(taken, seconds)
        return now - self._moved > self._limits.send_seconds or not keeps_up

    def reset(self) -> None:
        """Abort the connection, and drop the response bytes that our kernel holds. For a client that takes nothing, it
        would keep them for a quarter of an hour, long after our own end is closed.
        """
        with suppress(OSError), socket.socket(fileno=os.dup(self._fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _unacknowledged(self) -> int:
        """Count the bytes in our kernel that the client's kernel has not taken (SIOCOUTQ, which equals TIOCOUTQ)."""
        with suppress(OSError):
            return int(struct.unpack("i", fcntl.ioctl(self._fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
        return 0

    def _fileno(self) -> int:
        return int(self._transport.get_extra_info("socket").fileno())
