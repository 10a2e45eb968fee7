"""The head of a request, judged: what its framing is, and whom it is for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100

_VERSIONS = frozenset({"1.0", "1.1"})
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)

Fields = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""


class BadHead(Exception):
    """The text is for the client."""


@dataclass(frozen=True, slots=True)
class Head:
    """``target`` is a path. ``length`` is that of a body whose length is known, else 0."""

    target: bytes
    fields: Fields
    length: int
    has_body: bool


def judged(version: str, target: bytes, fields: Fields, *, upgrade: bool) -> Head:
    """``upgrade``: the parser takes what follows for another protocol. Raises BadHead for what two readers might read
    differently, beyond what the parser refuses by itself.
    """
    if version not in _VERSIONS:
        raise BadHead(f"HTTP/1.1 is spoken here, and HTTP/1.0; not HTTP/{version}.")
    codings = [value.strip().lower() for name, value in fields if name == b"transfer-encoding"]
    if codings and codings != [b"chunked"]:
        raise BadHead("A body may have the transfer coding chunked, and no other.")
    length = next((int(value) for name, value in fields if name == b"content-length"), 0)
    has_body = bool(codings or length)
    if has_body and upgrade:
        # The parser looks for the other protocol where the body is.
        raise BadHead("A request with a body cannot ask for an Upgrade: only HTTP/1.1 is spoken here.")
    return Head(*_made_relative(version, target, fields), length, has_body)


def _made_relative(version: str, target: bytes, fields: Fields) -> tuple[bytes, Fields]:
    """Of an absolute target the path, and its authority as the Host: it wins (RFC 9112, 3.2.2)."""
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        if not target.startswith((b"/", b"*")):
            raise BadHead("The target of a request is a path, or an http URL.")
        return target, fields
    path, host = target[absolute.end() :], (b"host", absolute[1])
    path = path if path.startswith(b"/") else b"/" + path
    hosts = sum(name == b"host" for name, _ in fields)
    if hosts == 1:
        return path, [host if field[0] == b"host" else field for field in fields]
    return path, [*fields, host] if not hosts and version == "1.0" else fields
