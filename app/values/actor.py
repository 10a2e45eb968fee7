"""The actor: the caller on whose behalf the current work is done, for the record of changes.

A context variable, like the current work of a request: threads carry it along.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller. ``name`` is the token's, None on a server without tokens and for the server's own work."""

    name: str | None = None
    address: str | None = None


_current: ContextVar[Actor] = ContextVar("actor", default=Actor())  # noqa: B039 - a frozen value


def actor() -> Actor:
    """Return who acts; outside of every request, nobody."""
    return _current.get()


def act_as(actor: Actor) -> None:
    """Make ``actor`` the one who acts in this task from now on."""
    _current.set(actor)


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    token = _current.set(actor)
    try:
        yield
    finally:
        _current.reset(token)
