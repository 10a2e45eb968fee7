"""The signature in a link: it covers the download, the expiry and the maker.

It is text that needs no escaping in a URL, ``EXPIRES.KEY.MAKER.MAC``: seconds since 1970, the key's number, the
maker's id, and an HMAC-SHA256 over these and the download.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

LONGEST = timedelta(days=7)
"""Longest lifetime of a link."""

_TEXT = re.compile(r"([0-9]{1,12})\.([0-9]{1,18})\.([a-z0-9]{1,32})\.([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Resource:
    """A download: its path and its query, decoded, however they were escaped."""

    path: str
    query: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Signature:
    expires: int
    key: int
    maker: str
    mac: str

    def __str__(self) -> str:
        return f"{self.expires}.{self.key}.{self.maker}.{self.mac}"

    def is_of(self, resource: Resource, key: bytes, seal: str) -> bool:
        expected = sign(resource, self.expires, self.key, key, self.maker, seal)
        return hmac.compare_digest(self.mac, expected.mac)


def sign(resource: Resource, expires: int, key_id: int, key: bytes, maker: str, seal: str) -> Signature:
    """Sign ``resource``. ``seal`` is the maker's secret: another maker of the same name has another."""
    signed = json.dumps(["link", resource.path, list(resource.query), expires, key_id, maker, seal])
    mac = hmac.digest(key, signed.encode(), hashlib.sha256)
    return Signature(expires, key_id, maker, base64.urlsafe_b64encode(mac).decode().rstrip("="))


def parse_signature(text: str) -> Signature | None:
    """Parse a signature; None if ``text`` is not one."""
    match = _TEXT.fullmatch(text)
    return Signature(int(match[1]), int(match[2]), match[3], match[4]) if match else None
