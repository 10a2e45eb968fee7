"""Rules for the Hosts that a server answers to and the web pages that may write, on plain text.

A browser lets any page send requests to any address, including this machine's. Two facts tell a page's request from a
client's: its Host, which is the page's own when the page's name was made to resolve to us (DNS rebinding), and its
Origin and Sec-Fetch-Site, which a page can't choose.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=%-]+)(?::([0-9]{0,5}))?", re.ASCII)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_OWN = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site for a page of this server, and for an action of the user."""


@dataclass(frozen=True, slots=True)
class Host:
    """The value of a Host header. ``port`` is empty where none is given."""

    name: str
    port: str

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The IP address; None for a name."""
        bare = self.name.removeprefix("[").removesuffix("]")
        try:
            found = ipaddress.ip_address(bare)
        except ValueError:
            return None
        if (found.version == 6) != self.name.startswith("["):
            return None
        return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found

    @property
    def is_loopback(self) -> bool:
        """Tell whether the host is this machine for every resolver (RFC 6761 for ``localhost``)."""
        if self.address is not None:
            return self.address.is_loopback
        return self.name == "localhost" or self.name.endswith(".localhost")

    def __str__(self) -> str:
        return f"{self.name}:{self.port}" if self.port else self.name


def parse_host(given: Sequence[str], http_version: str) -> Host | None:
    """Parse the one Host of a request; None if HTTP/1.0 omits it. Raises ValueError with a text for the client."""
    if not given and http_version == "1.0":
        return None
    if len(given) != 1:
        raise ValueError(f"A request must have exactly one Host header; this one has {len(given) or 'none'}.")
    match = _HOST.fullmatch(given[0].strip().lower())
    if match is None:
        raise ValueError("The Host header is not a name or an address, with or without a port.")
    return Host(match[1].removesuffix("."), match[2] or "")


@dataclass(frozen=True, slots=True)
class Sites:
    """The names of this server, and the origins of the web pages it lets in.

    A name in ``hosts`` without a port stands for every port. ``any_address``: an IP address as Host is accepted,
    because nobody can make it resolve to another machine.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    any_address: bool = False

    def answers_to(self, host: Host) -> bool:
        """Tell whether ``host`` is one that a page of another site can't have."""
        if host.is_loopback or (self.any_address and host.address is not None):
            return True
        return host.name in self.hosts or str(host) in self.hosts

    def is_foreign(self, host: Host | None, origin: str | None, fetch_site: str | None) -> bool:
        """Tell whether a request comes from a web page that is neither this server's nor of an allowed origin.

        One of the two headers is enough. A page on another port of this machine is another site too.
        """
        if origin is not None and self.lets_in(origin):
            return False
        if fetch_site is not None and fetch_site.strip().lower() not in _OWN:
            return True
        return origin is not None and not _is_of(origin, host)

    def lets_in(self, origin: str) -> bool:
        return origin.lower() in self.origins


def is_own_page(host: Host | None, origin: str | None, fetch_site: str | None) -> bool:
    """Tell whether a page of this server surely sent a request: one of the two headers says so, and none denies it."""
    says = [] if origin is None else [_is_of(origin, host)]
    if fetch_site is not None:
        says.append(fetch_site.strip().lower() == "same-origin")
    return bool(says) and all(says)


def _is_of(origin: str, host: Host | None) -> bool:
    """Tell whether a page of ``origin`` was loaded from ``host``, by http or https, as a proxy may speak TLS for us."""
    scheme, _, authority = origin.lower().partition("://")
    match = _HOST.fullmatch(authority)
    if match is None or host is None or scheme not in _DEFAULT_PORTS:
        return False
    default = _DEFAULT_PORTS[scheme]
    return (match[1], match[2] or default) == (host.name, host.port or default)
