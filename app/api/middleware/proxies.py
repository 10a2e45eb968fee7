"""The address of a client behind proxies: X-Forwarded-For and Forwarded (RFC 7239), of trusted proxies alone."""

import re
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

Network = IPv4Network | IPv6Network

_FOR = re.compile(r'(?:^|;)\s*for=("?)([^";]*)\1\s*(?:;|$)', re.IGNORECASE)
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+")


class Proxies:
    """The addresses of ``trusted`` proxies. Nobody else is believed when it says for whom it asks."""

    def __init__(self, trusted: Collection[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def client(self, scope: Scope) -> str | None:
        """Return the address of the client: the last one in the chain of proxies that no trusted proxy has.

        If a request has both headers and they name different clients, a client wrote one of them, and neither is
        believed: the address is the proxy's.
        """
        peer = scope["client"][0] if scope.get("client") else None
        if peer is None or not self._trusts(_address(peer)):
            return peer
        given: dict[bytes, list[str]] = {b"x-forwarded-for": [], b"forwarded": []}
        for name, value in scope["headers"]:
            if name in given:
                given[name].append(value.decode("latin-1"))
        chains = [_listed(given[b"x-forwarded-for"]), _forwarded(given[b"forwarded"])]
        found = {self._before(peer, chain) for chain in chains if chain}
        return found.pop() if len(found) == 1 else peer

    def _before(self, peer: str, chain: Sequence[str]) -> str:
        client = peer
        for text in reversed(chain):
            address = _address(text)
            if address is None:
                break
            client = str(address)
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _listed(values: Sequence[str]) -> list[str]:
    return [text.strip() for text in ",".join(values).split(",")] if values else []


def _forwarded(values: Sequence[str]) -> list[str]:
    """Return the ``for`` of each element of Forwarded, "" for an element without one.

    The chain is read from its end, which trusted proxies wrote: a comma in a quoted string that a client sent cuts only
    what stands before them.
    """
    found = (_FOR.search(element) for element in _listed(values))
    return ["" if each is None else each[2] for each in found]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address, with or without a port; None for anything else, such as ``unknown``."""
    with_port = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address(text if with_port is None else with_port[1] or with_port[2])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
