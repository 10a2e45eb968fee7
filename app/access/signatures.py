"""The signature in a link: which download, until when, and made by whom.

It is text that needs no escaping in a URL, ``EXPIRES.KEY.MAKER.MAC``: seconds since 1970, the key's number, the
maker's id, and an HMAC-SHA256 over all that the link is good for.
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
"""How long a link may be good for."""

_TEXT = re.compile(r"([0-9]{1,12})\.([0-9]{1,18})\.([a-z0-9]{1,32})\.([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Resource:
    """What is downloaded: the path and the query as they are understood, however they were escaped."""

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
    """``seal`` is a secret of the maker's: without it, nobody of that name is the same maker."""
    signed = json.dumps(["link", resource.path, list(resource.query), expires, key_id, maker, seal])
    mac = hmac.digest(key, signed.encode(), hashlib.sha256)
    return Signature(expires, key_id, maker, base64.urlsafe_b64encode(mac).decode().rstrip("="))


def parse_signature(text: str) -> Signature | None:
    """None for what is no signature."""
    match = _TEXT.fullmatch(text)
    return Signature(int(match[1]), int(match[2]), match[3], match[4]) if match else None
