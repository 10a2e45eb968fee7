"""Namespaces as the server describes them, and the requests that set their quotas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ._errors import InvalidRequest, understood
from ._http.session import Http, json_of
from ._parsing import kind_of
from ._query import integer_text
from ._retention import given_rules
from ._sizes import bytes_of

AS_IT_IS: Any = ...
"""The default of a quota: it stays as it is."""


@dataclass(frozen=True)
class Namespace:
    """The contents of a namespace in numbers, and its limits; a quota of None is no limit.

    ``logical_bytes`` is the size of all checkpoints together. ``stored_bytes``, which ``quota_bytes`` limits, counts
    each stored blob once: also those of the trash, until a sweep removes them. ``retention`` are the rules of models
    that have none of their own.
    """

    name: str
    quota_bytes: int | None
    quota_checkpoints: int | None
    models: int
    checkpoints: int
    logical_bytes: int
    stored_bytes: int
    retention: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Namespaces:
    """The namespaces of one server."""

    http: Http

    def all(self) -> Iterator[Namespace]:
        return map(_namespace_of, self.http.pages("/v1/namespaces", []))

    def get(self, name: str) -> Namespace:
        return _namespace_of(self.http.json("GET", _path(name))[0])

    def set_quota(self, name: str, size: int | str | None, checkpoints: int | None) -> Namespace:
        """Set the quotas that are given; None removes one."""
        quotas: dict[str, int | None] = {}
        if size is not AS_IT_IS:
            quotas["quota_bytes"] = None if size is None else bytes_of("bytes", size)
        if checkpoints is not AS_IT_IS:
            quotas["quota_checkpoints"] = None if checkpoints is None else int(integer_text("checkpoints", checkpoints))
        return _namespace_of(json_of(self.http.send("PUT", _path(name), [], json=quotas, safe=True)))

    def set_retention(self, name: str, rules: Mapping[str, Any] | None) -> Namespace:
        """Set the rules of models without their own; None removes them."""
        return _namespace_of(json_of(self.http.send("PUT", _path(name), [], json={"retention": rules}, safe=True)))


def _path(name: str) -> str:
    if name in {"", ".", ".."}:
        raise InvalidRequest(f"{name!r} is not a valid namespace")
    return f"/v1/namespaces/{quote(name, safe='')}"


@understood("a namespace")
def _namespace_of(data: Mapping[str, Any]) -> Namespace:
    return Namespace(
        name=kind_of(data["namespace"], str),
        quota_bytes=data["quota_bytes"],
        quota_checkpoints=data["quota_checkpoints"],
        models=kind_of(data["models"], int),
        checkpoints=kind_of(data["checkpoints"], int),
        logical_bytes=kind_of(data["logical_bytes"], int),
        stored_bytes=kind_of(data["stored_bytes"], int),
        retention=given_rules(data.get("retention")),
    )
