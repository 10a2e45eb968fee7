"""Server URLs, authorization, and a check of the addresses that a server's answers name."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import httpx

from .._errors import InvalidRequest, UnexpectedAnswer
from .._printable import printable

_USER = re.compile(r"(?i)^(https?://)[^/?#]*@")
_PLAIN = re.compile(r"[!-~]+")
"""Visible ASCII."""


@dataclass(frozen=True)
class Address:
    """A server's ``url``, without a password or a trailing slash, and the Authorization header for it, if any."""

    url: str
    authorization: str | None = field(repr=False)


def address_of(url: str, token: str | None) -> Address:
    """Parse the URL and token of a user. A user and a password in the URL become Basic, unless there is a token.

    Raises InvalidRequest, which shows neither the token nor the password.
    """
    shown = hidden(url)
    try:
        parsed, _ = httpx.URL(url), urlsplit(url).port  # each refuses URLs that the other may accept
    except (httpx.InvalidURL, ValueError) as error:
        why = "" if shown != url else f": {error}"
        raise InvalidRequest(f"{shown!r} is not a valid URL{why}") from None
    bare = _USER.sub(r"\1", url)
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query or parsed.fragment:
        raise InvalidRequest(f"{shown!r} is not a server URL; use http://HOST:PORT or https://HOST")
    if set(bare) & set("@\\ ") or not bare.isprintable():
        raise InvalidRequest(
            f"{shown!r} is not a server URL; percent-encode special characters in its password or path"
        )
    if token:
        if _PLAIN.fullmatch(token) is None:
            raise InvalidRequest(
                "the token has a space, a line break or another character that is not allowed in an HTTP header"
            )
        return Address(bare.rstrip("/"), f"Bearer {token}")
    if parsed.userinfo:
        pair = f"{parsed.username}:{parsed.password}".encode()
        return Address(bare.rstrip("/"), f"Basic {base64.b64encode(pair).decode()}")
    return Address(bare.rstrip("/"), None)


def hidden(url: str) -> str:
    """Return the URL without anything in it that may be a password, however it is written."""
    return re.sub(r"(?s)^(.*?://)?.*@", r"\1***@", url)


def path_of(said: object, url: str) -> str:
    """Return the path and the query that a server's answer names, to be appended to ``url``, the server's own.

    Raises UnexpectedAnswer for every address that could lead elsewhere: to another scheme, host or port, out of the
    path of ``url``, or through a parser that reads it more loosely.
    """
    if isinstance(said, str):
        path = said.removeprefix(url) if said.startswith(url + "/") else said
        if _PLAIN.fullmatch(path) and path[0] == "/" and not set(path) & set("\\#") and _stays(path):
            return path
    raise UnexpectedAnswer(f"the server at {url} sent a URL of another server: {printable(repr(said)[:200])}")


def _stays(path: str) -> bool:
    """Tell whether no segment of the path, however often decoded, is empty, holds a slash or leads to a parent."""
    segments = path.partition("?")[0].split("/")[1:]
    return all(map(_is_name, segments))


def _is_name(segment: str) -> bool:
    decoded = unquote(segment)
    while decoded != segment:
        segment, decoded = decoded, unquote(decoded)
    return decoded.isprintable() and not any(part in {"", ".", ".."} for part in re.split(r"[/\\]", decoded))
