"""Aliases: names that mean one checkpoint of a model, until they are moved."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One change of an alias. Its ``revision`` counts from 1 and is never given twice. ``version`` is None if the
    change removed the alias. ``by`` is the name of the token that made the change, None on a server without tokens.
    """

    revision: int
    version: int | None
    previous_version: int | None
    protected: bool
    note: str | None
    at: datetime
    by: str | None


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias as its last change left it. ``previous_version`` is what it meant before its last move."""

    name: str
    version: int
    previous_version: int | None
    revision: int
    protected: bool
    note: str | None
    moved_at: datetime
    moved_by: str | None
