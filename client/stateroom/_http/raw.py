"""Connections for bodies of gigabytes: http.client moves bytes at twice the speed of httpx, which is used only through
proxies.
"""

from __future__ import annotations

import http.client
import selectors
import socket
import ssl
from contextlib import suppress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from .session import Http
from .tls import tls_context

BROKEN = (OSError, http.client.HTTPException, httpx.TransportError)
"""Exceptions that a failed connection may raise."""


def connect(server: Http) -> http.client.HTTPConnection:
    """Open a new connection with the server's timeouts. Raises one of BROKEN."""
    return open_wire(server.url, connect_timeout=min(server.timeout, 10.0), timeout=server.timeout)


def open_wire(url: str, *, connect_timeout: float, timeout: float) -> http.client.HTTPConnection:
    """Open a new connection to the host of ``url``. Timeouts in seconds. Raises one of BROKEN."""
    address = urlsplit(url)
    wire: http.client.HTTPConnection
    if address.scheme == "https":
        wire = http.client.HTTPSConnection(address.hostname or "", address.port, context=tls_context())
    else:
        wire = http.client.HTTPConnection(address.hostname or "", address.port)
    wire.timeout = connect_timeout
    wire.connect()
    wire.sock.settimeout(timeout)
    return wire


def shut_down(wire: http.client.HTTPConnection) -> None:
    """End a connection at once, and a read of another thread with it."""
    if wire.sock is not None:
        with suppress(OSError):
            wire.sock.shutdown(socket.SHUT_RDWR)


def is_answered(wire: http.client.HTTPConnection) -> bool:
    """Return whether an answer has begun to arrive, or the connection has ended, before everything was sent. Always
    False over TLS, where the bytes that arrive may be TLS's own.
    """
    if isinstance(wire.sock, ssl.SSLSocket):
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(wire.sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def is_proxied(url: str) -> bool:
    """Return whether httpx would use a proxy for this URL."""
    address = urlsplit(url)
    proxies = getproxies()
    return (address.scheme in proxies or "all" in proxies) and not proxy_bypass(address.hostname or "")


def read_answer(server: Http, method: str, path: str, answer: http.client.HTTPResponse) -> httpx.Response:
    """Read an answer with its body into an httpx.Response."""
    content = answer.read()
    request = httpx.Request(method, server.url + path)
    return httpx.Response(answer.status, headers=answer.getheaders(), content=content, request=request)
