"""Events as the server records them, and the requests that read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Union

from ._errors import understood
from ._parsing import time_of

if TYPE_CHECKING:
    from ._http.session import Http

After = Union[int, str, None]
"""The id of an event, ``"newest"``, or None for the oldest that is kept."""

Kinds = Union[str, Sequence[str]]

EVENTS_A_PAGE = 1_000


@dataclass(frozen=True)
class Event:
    """A change. ``model``, ``version`` and ``alias`` are None where the kind of event has none. ``by`` is the name of
    the token that made the change, None on a server without tokens; ``address``, where it came from, is known only of
    the events of the whole server.
    """

    id: int
    kind: str
    model: str | None
    version: int | None
    alias: str | None
    at: datetime
    by: str | None
    address: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Events:
    """The events at one address of a server."""

    http: Http
    path: str

    def read(self, after: After, kinds: Kinds, *, follow: bool) -> Iterator[Event]:
        """Yield the events after the event ``after``; with ``follow``, wait for more, for ever."""
        given = [kinds] if isinstance(kinds, str) else kinds
        kind = [("kind", each) for each in given]
        wait = [("wait", str(self.http.long_poll_seconds))] if follow else []
        while True:
            start = [] if after is None else [("after", str(after))]
            answer, _ = self.http.json("GET", self.path, [*kind, *wait, *start, ("limit", str(EVENTS_A_PAGE))])
            with understood("a list of events"):
                found = [_read(item) for item in answer["items"]]
                after = int(answer["last"])
            yield from found
            if len(found) < EVENTS_A_PAGE and not follow:
                return


def _read(item: Mapping[str, Any]) -> Event:
    return Event(
        id=int(item["id"]),
        kind=str(item["kind"]),
        model=item["model"],
        version=item["version"],
        alias=item["alias"],
        at=time_of(item["at"]),
        by=item["by"],
        address=item.get("address"),
        detail=item["detail"],
    )
