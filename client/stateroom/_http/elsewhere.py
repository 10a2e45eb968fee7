"""Byte ranges of files at other hosts than the server, over connections that are used again and again."""

from __future__ import annotations

import http.client
import threading
from collections import defaultdict
from contextlib import suppress
from urllib.parse import urlsplit

from .raw import BROKEN, is_proxied, open_wire, shut_down

CONNECT_TIMEOUT = 3.0
TIMEOUT = 30.0
"""Seconds for each wait on the network."""

_FIELDS = {"Accept-Encoding": "identity"}


class Unreachable(Exception):
    """No connection to a host could be made."""


class Answer:
    """The body of an answer, read as it arrives. Needs ``close``."""

    def __init__(self, hosts: Elsewhere, origin: str, wire: http.client.HTTPConnection) -> None:
        self._hosts, self._origin, self._wire = hosts, origin, wire
        self._response = wire.getresponse()
        self.status = self._response.status

    def readinto(self, view: memoryview) -> int:
        """Read up to ``len(view)`` bytes and return their number; 0 at the end. Raises one of BROKEN."""
        return self._response.readinto(view)

    def close(self) -> None:
        """Keep the connection for the next request if the body was read to its end."""
        if self._response.isclosed() and not self._response.will_close:
            self._hosts.keep(self._origin, self._wire)
        else:
            self._hosts.drop(self._wire)


class Elsewhere:
    """Connections to other hosts, for several threads. Usable again after ``close``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[http.client.HTTPConnection]] = defaultdict(list)
        self._open: set[http.client.HTTPConnection] = set()

    def get(self, url: str, start: int, end: int) -> Answer:
        """Request bytes ``[start, end)`` of ``url``. Raises Unreachable (also for a host behind a proxy), and one of
        BROKEN.
        """
        address = urlsplit(url)
        origin = f"{address.scheme}://{address.netloc}"
        path = address._replace(scheme="", netloc="", fragment="").geturl()
        while (wire := self._take(origin)) is not None:
            with suppress(*BROKEN):  # the host has closed it meanwhile
                return self._ask(wire, origin, path, start, end)
        return self._ask(self._connect(origin), origin, path, start, end)

    def close(self) -> None:
        """Close all connections. A read of another thread ends: that thread closes its connection."""
        with self._lock:
            wires, self._open = self._open, set()
            idle = {wire for each in self._idle.values() for wire in each}
            self._idle.clear()
        for wire in wires:
            shut_down(wire)
        for wire in idle:
            wire.close()

    def keep(self, origin: str, wire: http.client.HTTPConnection) -> None:
        """Take back a connection whose answer was read to its end."""
        with self._lock:
            if wire in self._open:
                self._idle[origin].append(wire)
                return
        wire.close()

    def drop(self, wire: http.client.HTTPConnection) -> None:
        """Close a connection that is of no further use."""
        with self._lock:
            self._open.discard(wire)
        wire.close()

    def _ask(self, wire: http.client.HTTPConnection, origin: str, path: str, start: int, end: int) -> Answer:
        try:
            wire.request("GET", path, headers={**_FIELDS, "Range": f"bytes={start}-{end - 1}"})
            return Answer(self, origin, wire)
        except BaseException:
            self.drop(wire)
            raise

    def _take(self, origin: str) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle[origin].pop() if self._idle[origin] else None

    def _connect(self, origin: str) -> http.client.HTTPConnection:
        if is_proxied(origin):
            raise Unreachable("a proxy is between this host and the store")
        try:
            wire = open_wire(origin, connect_timeout=CONNECT_TIMEOUT, timeout=TIMEOUT)
        except (OSError, ValueError) as error:
            raise Unreachable(str(error)) from error
        with self._lock:
            self._open.add(wire)
        return wire
