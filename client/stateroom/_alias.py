"""Aliases as the server describes them, and the requests that move them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ._errors import InvalidRequest, NotFound, PreconditionFailed, understood
from ._http.session import json_of
from ._parsing import time_of
from ._query import version_in

if TYPE_CHECKING:
    from ._api import ModelApi
    from ._query import Ref

UNCHECKED: Any = ...
"""The default of ``expect``: move the alias from wherever it is."""


@dataclass(frozen=True)
class Alias:
    """A name that means one checkpoint of a model until it is moved. ``revision`` grows with each change. ``moved_by``
    is the name of the token that changed it last, None on a server without tokens.
    """

    model: str
    name: str
    version: int
    previous_version: int | None
    revision: int
    protected: bool
    note: str | None
    moved_at: datetime
    moved_by: str | None


@dataclass(frozen=True)
class AliasChange:
    """One change of an alias; ``version`` is None if it removed the alias."""

    revision: int
    version: int | None
    previous_version: int | None
    protected: bool
    note: str | None
    at: datetime
    by: str | None


@dataclass(frozen=True)
class Aliases:
    """The aliases of one model."""

    api: ModelApi

    def all(self) -> list[Alias]:
        answer, _ = self.api.http.json("GET", f"{self.api.path}/aliases")
        with understood("a list of aliases"):
            return [self._read(item) for item in answer["items"]]

    def get(self, name: str) -> Alias:
        return self._read(self.api.http.json("GET", self._at(name))[0])

    def move(self, name: str, ref: Ref, expect: Ref | None, note: str | None) -> Alias:
        """Point an alias at a checkpoint; with ``expect``, only if it means that version now (None: if it is new)."""
        body = {"ref": self.api.ref(ref), **({} if note is None else {"note": note})}
        conditions = {} if expect is UNCHECKED else self._conditions(name, expect)
        answer = self.api.http.send(
            "PUT", self._at(name), self.api.scope(ref), json=body, headers=conditions, safe=not conditions
        )
        return self._read(json_of(answer))

    def roll_back(self, name: str, expect: Ref | None) -> Alias:
        """Move an alias to its previous version: never twice, whatever happens to the answer."""
        now = self.get(name) if expect is UNCHECKED else self._expected(name, expect)
        if now is None:
            raise InvalidRequest("a rollback needs an alias: expect cannot be None")
        answer = self.api.http.send("POST", f"{self._at(name)}/rollback", headers=_if_match(now))
        return self._read(json_of(answer))

    def protect(self, name: str, *, protected: bool) -> Alias:
        return self._read(self.api.http.json("PATCH", self._at(name), body={"protected": protected}, safe=True)[0])

    def remove(self, name: str, expect: Ref | None) -> None:
        now = None if expect is UNCHECKED else self._expected(name, expect)
        self.api.http.send("DELETE", self._at(name), headers={} if now is None else _if_match(now))

    def history(self, name: str) -> Iterator[AliasChange]:
        return map(_change_of, self.api.http.pages(f"{self._at(name)}/history", []))

    def _at(self, name: str) -> str:
        if name in {"", ".", ".."}:
            raise InvalidRequest(f"{name!r} is not a valid alias")
        return f"{self.api.path}/aliases/{quote(name, safe='')}"

    def _conditions(self, name: str, expect: Ref | None) -> dict[str, str]:
        now = self._expected(name, expect)
        return {"If-None-Match": "*"} if now is None else _if_match(now)

    def _expected(self, name: str, expect: Ref | None) -> Alias | None:
        """Return the alias if it means the expected version now. Raises PreconditionFailed."""
        try:
            now = self.get(name)
        except NotFound as error:
            if error.code != "alias-not-found" or expect is not None:
                raise
            return None
        wanted = None if expect is None else version_in(expect, self.api.model)
        if now.version != wanted:
            is_expected = "no such alias" if wanted is None else str(wanted)
            raise PreconditionFailed(
                f"{name} of {self.api.model} means {now.version} now, and {is_expected} was expected; it was moved at "
                f"{now.moved_at:%Y-%m-%d %H:%M:%S} UTC{f' by {now.moved_by}' if now.moved_by else ''}"
            )
        return now

    def _read(self, answer: Mapping[str, Any]) -> Alias:
        with understood("an alias"):
            return Alias(
                model=self.api.model,
                name=answer["alias"],
                version=answer["version"],
                previous_version=answer["previous_version"],
                revision=answer["revision"],
                protected=answer["protected"],
                note=answer["note"],
                moved_at=time_of(answer["moved_at"]),
                moved_by=answer["moved_by"],
            )


def _if_match(alias: Alias) -> dict[str, str]:
    return {"If-Match": f'"{alias.revision}"'}


@understood("a change of an alias")
def _change_of(data: Mapping[str, Any]) -> AliasChange:
    return AliasChange(
        revision=data["revision"],
        version=data["version"],
        previous_version=data["previous_version"],
        protected=data["protected"],
        note=data["note"],
        at=time_of(data["at"]),
        by=data["by"],
    )
