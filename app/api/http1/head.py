"""Validation of a request's head: its framing and its target."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100

_VERSIONS = frozenset({"1.0", "1.1"})
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)

Fields = Sequence[tuple[bytes, bytes]]
"""Header names in lower case, and values."""


class BadHead(Exception):
    """An invalid head. The text is for the client."""


@dataclass(frozen=True, slots=True)
class Head:
    """A valid head. ``target`` is a path. ``length`` is the body's if it is known, else 0."""

    target: bytes
    fields: Fields
    length: int
    has_body: bool


def judged(version: str, target: bytes, fields: Fields, *, upgrade: bool) -> Head:
    """Validate a head. Raises BadHead for a head that two servers might read differently, beyond the parser's own
    refusals. ``upgrade``: the parser takes the next bytes for another protocol.
    """
    if version not in _VERSIONS:
        raise BadHead(f"HTTP/{version} is not supported; use HTTP/1.1 or HTTP/1.0.")
    codings = [value.strip().lower() for name, value in fields if name == b"transfer-encoding"]
    if codings and codings != [b"chunked"]:
        raise BadHead("The only supported Transfer-Encoding is chunked.")
    length = next((int(value) for name, value in fields if name == b"content-length"), 0)
    has_body = bool(codings or length)
    if has_body and upgrade:
        # The parser would read the body as the other protocol.
        raise BadHead("A request with a body must not have an Upgrade header: this server supports only HTTP/1.1.")
    return Head(*_made_relative(version, target, fields), length, has_body)


def _made_relative(version: str, target: bytes, fields: Fields) -> tuple[bytes, Fields]:
    """Reduce an absolute target to its path. Its authority replaces the Host (RFC 9112, 3.2.2)."""
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        if not target.startswith((b"/", b"*")):
            raise BadHead("The request target must be a path or an http URL.")
        return target, fields
    path, host = target[absolute.end() :], (b"host", absolute[1])
    path = path if path.startswith(b"/") else b"/" + path
    hosts = sum(name == b"host" for name, _ in fields)
    if hosts == 1:
        return path, [host if field[0] == b"host" else field for field in fields]
    return path, [*fields, host] if not hosts and version == "1.0" else fields
