"""How the transfers of one connection go: when bytes came, and when some were taken."""

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
    """Asked once a tick whether a client is too slow. ``heard`` is when its last byte came."""

    def __init__(self, limits: Limits, transport: Transport, flow: PatientFlow, now: float) -> None:
        self.heard = now
        self._limits = limits
        self._transport = transport
        self._flow = flow
        self._received = 0  # bytes since the pace of the body was looked at
        self._paced: RequestResponseCycle | None = None  # whose body ``_body_pace`` is about
        self._body_pace = self._send_pace = Pace(limits.least_rate, 0)
        self._progress: object = None  # of the answer: it moved since it was another one
        self._moved = now
        self._untaken = 0  # bytes of the answer that the client had not taken when that was looked at

    def hear(self, count: int, now: float) -> None:
        """Note that bytes came."""
        self.heard = now
        self._received += count

    def why_late(self, cycle: RequestResponseCycle, now: float, seconds: float) -> str | None:
        """Why a body that is being waited for comes too slowly, if it does and we do not hold it back. ``seconds``
        have passed since this was looked at.
        """
        if not cycle.more_body or cycle.waiting_for_100_continue or self._flow.read_paused:
            return None
        if now - max(self.heard, self._flow.wanted) > self._limits.body_seconds:
            return f"No byte of the body came for {self._limits.body_seconds:g} s."
        if cycle is not self._paced:
            self._paced, self._body_pace = cycle, Pace(self._limits.least_rate, 2 * self._limits.body_seconds)
        received, self._received = self._received, 0
        if self._body_pace.keeps_up(received, seconds):
            return None
        return f"The body came at less than {self._limits.least_rate:,} bytes a second."

    def is_stuck(self, cycle: RequestResponseCycle | None, now: float, seconds: float) -> bool:
        """Tell whether the client takes nothing of what is to be sent, not even its kernel does; or next to nothing."""
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
        """End the connection, and drop what the kernel still holds of the answer: for a client that takes nothing it
        would keep that for a quarter of an hour, long after our own end is closed.
        """
        with suppress(OSError), socket.socket(fileno=os.dup(self._fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _unacknowledged(self) -> int:
        """Bytes in the kernel that the client's has not taken (SIOCOUTQ), which has the number of TIOCOUTQ."""
        with suppress(OSError):
            return int(struct.unpack("i", fcntl.ioctl(self._fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
        return 0

    def _fileno(self) -> int:
        return int(self._transport.get_extra_info("socket").fileno())
