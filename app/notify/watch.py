"""Waiting for events: one look at the catalog for all waiting clients of a process."""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from anyio import CapacityLimiter, to_thread

from ..catalog import Catalog, events
from ..errors import StateroomError
from ..values.event import Event, EventFilter, EventPage

SPACING = 0.2
"""Fewest seconds between two looks at the catalog, however many clients wait and however many events come."""

REMEMBERED = 1_000
"""Events that are kept in memory, for clients that were away for a moment; also the most that one look reads."""

_log = logging.getLogger("stateroom.events")


@dataclass(eq=False, slots=True)
class _Waiter:
    """A client that waits for an event beyond ``after``. The looking task sets ``found``."""

    after: int
    wanted: EventFilter
    found: list[Event] = field(default_factory=list)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wants(self, event: Event) -> bool:
        return event.id > self.after and self.wanted.matches(event)

    @property
    def key(self) -> Hashable:
        return self.wanted.namespace, self.wanted.name


class EventWatch:
    """The waiting clients of a process. While there are some, one task looks for new events, at most once in SPACING
    seconds, and hands them to those that want them. Create it on the event loop.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._thread = CapacityLimiter(1)
        self._waiters: dict[Hashable, set[_Waiter]] = defaultdict(set)
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._seen = 0  # the newest event that was looked at
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")
        self.stopped = False
        self.looks = 0

    async def beyond(self, after: int, wanted: EventFilter, seconds: float) -> EventPage | None:
        """Return the wanted events after the event ``after``, as soon as there are some; an empty page after
        ``seconds`` and when the server stops. None: they are in the catalog, and no longer here.
        """
        if self._looking is None:
            self._recent.clear()
            self._seen = after
        if self.stopped:
            return EventPage((), after)
        if after < (self._recent[0].id - 1 if self._recent else self._seen):
            return None
        waiter = _Waiter(after, wanted)
        waiter.found.extend(event for event in self._recent if waiter.wants(event))
        if not waiter.found:
            with self._joined(waiter), suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter.woken.wait()
        return EventPage(tuple(waiter.found), max(after, self._seen))

    def stop(self) -> None:
        """End all waits: the server stops."""
        self.stopped = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.woken.set()

    @contextmanager
    def _joined(self, waiter: _Waiter) -> Iterator[None]:
        self._waiters[waiter.key].add(waiter)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_while_somebody_waits())
        try:
            yield
        finally:
            self._waiters[waiter.key].discard(waiter)
            if not self._waiters[waiter.key]:
                del self._waiters[waiter.key]

    async def _look_while_somebody_waits(self) -> None:
        try:
            while self._waiters:
                await asyncio.sleep(max(0.0, self._looked_at + SPACING - time.monotonic()))
                self._looked_at = time.monotonic()
                self.looks += 1
                try:
                    self._hand_out(await to_thread.run_sync(self._look, limiter=self._thread))
                except StateroomError as error:
                    _log.warning("waiting clients hear of no events: %s", error)
        finally:
            self._looking = None

    def _look(self) -> tuple[Event, ...]:
        with self._catalog.read() as session:
            return events.events_beyond(session, self._seen, REMEMBERED)

    def _hand_out(self, found: tuple[Event, ...]) -> None:
        for event in found:
            self._seen = event.id
            self._recent.append(event)
            for key in _keys_of(event):
                for waiter in self._waiters.get(key, ()):
                    if waiter.wants(event):
                        waiter.found.append(event)
                        waiter.woken.set()


def _keys_of(event: Event) -> Iterator[Hashable]:
    """Yield the keys of the clients that may want an event."""
    yield None, None
    if event.model is not None:
        yield event.model.namespace, None
        yield event.model.namespace, event.model.name
