"""The record of refused tokens, bounded however many requests are refused."""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread

from ..catalog import Catalog, events
from ..errors import StateroomError
from ..values.actor import Actor, acting_as
from ..values.event import EventKind

FIRST_AFTER = 1.0
"""Seconds from a refusal to its event, unless others were recorded in the last minute."""

SPACING = 60.0
"""Fewest seconds between two transactions that record refusals."""

MOST = 30
"""Most events of one transaction: beyond that, refusals are only counted. A flood adds 30 rows a minute."""

_log = logging.getLogger("stateroom.events")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal of a request with the token ``token`` (its name, or its id if it is not valid) from ``address``."""

    address: str | None
    token: str | None
    reason: str


_OTHERS = Refusal(None, None, "other refusals")


class Refusals:
    """The refusals that a process has not recorded yet. Each kind of refusal is one event a minute, with a count.

    Create it on the event loop.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._thread = CapacityLimiter(1)
        self._counts: Counter[Refusal] = Counter()
        self._writing: asyncio.Task[None] | None = None
        self._wrote_at = float("-inf")

    def note(self, refusal: Refusal) -> None:
        is_room = refusal in self._counts or len(self._counts) < MOST - 1
        self._counts[refusal if is_room else _OTHERS] += 1
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_later())

    def write(self) -> None:
        """Record what was noted. Blocks."""
        counts, self._counts = self._counts, Counter()
        try:
            with self._catalog.write_own_rows() as w:
                for refusal, count in counts.items():
                    with acting_as(Actor(refusal.token, refusal.address)):
                        events.record(w, EventKind.TOKEN_REFUSED, detail={"reason": refusal.reason, "count": count})
        except StateroomError as error:
            _log.warning("%s refusals of tokens were not recorded: %s", counts.total(), error)

    def close(self) -> None:
        """Record what is left. Blocks."""
        if self._counts:
            self.write()

    async def _write_later(self) -> None:
        while self._counts:
            await asyncio.sleep(max(FIRST_AFTER, self._wrote_at + SPACING - time.monotonic()))
            self._wrote_at = time.monotonic()
            await to_thread.run_sync(self.write, limiter=self._thread)
