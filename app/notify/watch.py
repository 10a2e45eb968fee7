"""Waiting for events: one look at the catalog for all waiting clients of a process."""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from anyio import CapacityLimiter, to_thread

from ..catalog import Catalog, Listener, events
from ..errors import StateroomError
from ..values.event import Event, EventFilter, EventPage

SPACING = 0.2
"""Seconds between two looks at the catalog, however many clients wait and however many events come."""

AT_ONCE = 3
"""Looks that may follow each other without a pause after a quiet time: news often comes in twos, such as a checkpoint
and then the alias that moves to it.
"""

NET = 2.0
"""Seconds between two looks while a listener tells of news, in case that some is lost on the way."""

LISTENED_AGAIN = 10.0
"""Seconds from a listener that has ended to the next one. Until then, looks come every SPACING seconds."""

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
    seconds on average, and hands them to those that want them. A listener of the catalog says when to look.
    Create it on the event loop.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._thread = CapacityLimiter(1)
        self._waiters: dict[Hashable, set[_Waiter]] = defaultdict(set)
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._seen = 0  # the newest event that was looked at
        self._looking: asyncio.Task[None] | None = None
        self._paid_until = float("-inf")  # each look pays for SPACING seconds
        self._listener: Listener | None = None
        self._listened_at = float("-inf")
        self._news = asyncio.Event()
        self.stopped = False

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

    @property
    def is_listening(self) -> bool:
        return self._listener is not None

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
            self._news.set()  # some may have come since the waiter read the catalog
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
                await self._pause()
                try:
                    self._hand_out(await to_thread.run_sync(self._look, limiter=self._thread))
                except StateroomError as error:
                    _log.warning("waiting clients hear of no events: %s", error)
        finally:
            self._looking = None

    async def _pause(self) -> None:
        """Wait until it is time to look: there is news, or nobody listens for it, or it may have been lost."""
        await self._listen()
        if self._listener is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(NET):
                    await self._news.wait()
        credit = SPACING * (AT_ONCE - 1) if self._listener is not None else 0.0
        await asyncio.sleep(max(0.0, self._paid_until - credit - time.monotonic()))
        self._news.clear()
        self._paid_until = max(self._paid_until, time.monotonic()) + SPACING

    async def _listen(self) -> None:
        """Begin to listen, unless somebody listens or did so moments ago."""
        now = time.monotonic()
        if self._listener is not None or now - self._listened_at < LISTENED_AGAIN:
            return
        self._listened_at = now
        try:
            self._listener = await to_thread.run_sync(self._catalog.listen, limiter=self._thread)
        except StateroomError as error:
            _log.warning("nobody tells of new events, so waiting clients hear of them a little later: %s", error)
        else:
            asyncio.get_running_loop().add_reader(self._listener.fd, self._hear)
            self._news.set()  # what came before was not heard

    def _hear(self) -> None:
        self._news.set()
        if self._listener is not None and not self._listener.hear():
            self.close()

    def close(self) -> None:
        """Stop listening. Call it on the event loop."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fd)
            self._listener.close()
            self._listener = None

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
