"""Requests to URLs that users gave: never to an address inside the network, unless that is allowed.

The addresses of a host are looked up once, all are checked, and the connection is made to one of them: DNS cannot name
another one in between. No redirect is followed. http.client is enough for that, and comes with Python.
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Timer
from urllib.parse import urlsplit

from ..errors import InvalidRequest

SECONDS = 15.0
"""Longest time of a request, from the connection to the status of the answer."""

MAX_URL = 2_000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Unsent(Exception):
    """A request that got no answer. The text says why, for the one who gave the URL."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in its parts. ``path`` includes the query."""

    is_tls: bool
    host: str
    port: int
    path: str


def parse_target(url: str) -> Target:
    """Parse an http or https URL. Raises InvalidRequest, code ``bad-webhook-url``."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    is_plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL
    if not is_plain or not host or parts.scheme not in {"http", "https"} or "@" in parts.netloc:
        raise InvalidRequest(
            f"{url[:100]!r} is not a URL for a webhook: use https://HOST/PATH, without a user name, in at most "
            f"{MAX_URL:,} ASCII characters",
            code="bad-webhook-url",
        )
    is_tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(is_tls, host, port or (443 if is_tls else 80), path)


def check_url(url: str, *, private: bool) -> None:
    """Raise InvalidRequest for a URL that no request can be sent to now (``bad-webhook-url``, ``private-address``)."""
    target = parse_target(url)
    try:
        _address_of(target, private=private)
    except PrivateAddress as error:
        raise InvalidRequest(str(error), code="private-address") from None
    except Unsent as error:
        raise InvalidRequest(str(error), code="bad-webhook-url") from None


class PrivateAddress(Unsent):
    """The host has an address that is not public."""


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public internet, also if it is written as an IPv6 one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _address_of(target: Target, *, private: bool) -> str:
    """Return an address of the host, after all its addresses were checked. Raises Unsent."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unsent(f"the host {target.host} has no address") from None
    addresses = [str(each[4][0]) for each in found]
    for address in addresses:
        if not private and not is_public(ipaddress.ip_address(address.partition("%")[0])):
            raise PrivateAddress(
                f"{target.host} has the address {address}, which is not public; a server with "
                "STATEROOM_WEBHOOK_PRIVATE=on sends to it"
            )
    return addresses[0]


def connection(target: Target, address: str, seconds: float) -> http.client.HTTPConnection:
    """Return a connection, not yet made, to one of the addresses of a target's host."""

    def connect(_: tuple[str, int], timeout: float, *__: object) -> socket.socket:
        return socket.create_connection((address, target.port), timeout)

    wire: http.client.HTTPConnection
    if target.is_tls:
        context = ssl.create_default_context()
        wire = http.client.HTTPSConnection(target.host, target.port, timeout=seconds, context=context)
    else:
        wire = http.client.HTTPConnection(target.host, target.port, timeout=seconds)
    wire._create_connection = connect  # type: ignore[attr-defined]  # noqa: SLF001 - http.client's seam for tests
    return wire


class Outgoing:
    """Requests that take at most ``seconds`` each. ``private`` allows addresses that are not public."""

    def __init__(self, *, private: bool, seconds: float = SECONDS) -> None:
        self._private = private
        self._seconds = seconds
        self._open: set[http.client.HTTPConnection] = set()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a POST and return the status of the answer, which is not read any further. Raises Unsent. Blocks."""
        target = parse_target(url)
        wire = connection(target, _address_of(target, private=self._private), self._seconds)
        try:
            with self._ended_in_time(wire):
                wire.request("POST", target.path, body, {"Content-Type": "application/json", **headers})
                return wire.getresponse().status
        except ssl.SSLCertVerificationError as error:
            raise Unsent(f"the certificate is not valid: {error.verify_message}") from error
        except TimeoutError as error:
            raise Unsent(f"no answer within {self._seconds:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unsent(f"the request failed: {str(error) or type(error).__name__}") from error
        finally:
            wire.close()

    def close(self) -> None:
        """Cut off the requests that run."""
        for wire in tuple(self._open):
            _cut(wire)

    @contextmanager
    def _ended_in_time(self, wire: http.client.HTTPConnection) -> Iterator[None]:
        """Cut the connection off when its time is over: a receiver may send a byte now and then for ever."""
        timer = Timer(self._seconds, _cut, (wire,))
        timer.daemon = True
        timer.start()
        self._open.add(wire)
        try:
            yield
        finally:
            timer.cancel()
            self._open.discard(wire)


def _cut(wire: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        wire.sock.shutdown(socket.SHUT_RDWR)
