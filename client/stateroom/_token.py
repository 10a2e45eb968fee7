"""Tokens as the server describes them, and the requests that make and revoke them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Union
from urllib.parse import quote

from ._errors import InvalidRequest, understood
from ._http.session import Http
from ._parsing import kind_of, time_of

Expires = Union[str, datetime, None]


@dataclass(frozen=True)
class Token:
    """A token of a server, valid only in ``namespaces`` unless that is None, and until ``expires_at`` if that is set.

    ``state`` is ``good``, ``expired`` or ``revoked``; ``last_used_at`` is at most a minute before its last use, None if
    it was never used. ``token``, the text that requests send, is known only of a new token.
    """

    name: str
    id: str
    scope: str
    namespaces: tuple[str, ...] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    state: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Tokens:
    """The tokens of one server."""

    http: Http

    def all(self) -> Iterator[Token]:
        return map(_token_of, self.http.pages("/v1/tokens", []))

    def add(self, name: str, scope: str, namespaces: str | Iterable[str] | None, expires: Expires) -> Token:
        if namespaces is not None:
            namespaces = [namespaces] if isinstance(namespaces, str) else list(namespaces)
        if isinstance(expires, datetime):
            expires = expires.astimezone(timezone.utc).isoformat()
        body = {"name": name, "scope": scope, "namespaces": namespaces, "expires": expires}
        return _token_of(self.http.json("POST", "/v1/tokens", body=body)[0])

    def revoke(self, name_or_id: str) -> None:
        if name_or_id in {"", ".", ".."}:
            raise InvalidRequest(f"{name_or_id!r} is not the name or the id of a token")
        self.http.send("DELETE", f"/v1/tokens/{quote(name_or_id, safe='')}", safe=True)


@understood("a token")
def _token_of(data: Mapping[str, Any]) -> Token:
    def time(name: str) -> datetime | None:
        return None if data[name] is None else time_of(data[name])

    return Token(
        name=kind_of(data["name"], str),
        id=kind_of(data["id"], str),
        scope=kind_of(data["scope"], str),
        namespaces=None if data["namespaces"] is None else tuple(data["namespaces"]),
        created_at=time_of(data["created_at"]),
        expires_at=time("expires_at"),
        revoked_at=time("revoked_at"),
        last_used_at=time("last_used_at"),
        state=kind_of(data["state"], str),
        token=data.get("token"),
    )
