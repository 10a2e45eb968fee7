"""Places for long or large work, given out fairly among their owners."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from ..errors import Cancelled
from .cancellation import LOOK_SECONDS


class Place:
    """A requested place. Call ``leave`` whether or not the place was given; a second call does nothing."""

    def __init__(self, owner: str, given: Callable[[], None], left: Callable[["Place"], None]) -> None:
        self.owner = owner
        self.given = given
        self._left = left

    def leave(self) -> None:
        self._left(self)


class FairPlaces:
    """A pool of ``capacity`` places. Thread-safe.

    An owner gets another place while more places are free than it holds. So one owner alone has at most half of all,
    rounded up, and an owner without a place gets one while any is free: an owner with a place never gets the last one.
    Waiting owners take turns, and the requests of each are served in order.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._held: Counter[str] = Counter()
        self._taken: set[Place] = set()
        self._queues: OrderedDict[str, deque[Place]] = OrderedDict()  # of owners, the next one first
        self._lock = Lock()

    @property
    def taken(self) -> int:
        return len(self._taken)

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(map(len, self._queues.values()))

    def take(self, owner: str) -> Place | None:
        """Take a place, if ``owner`` can have one now."""
        with self._lock:
            if not self._may_have_one(owner):
                return None
            place = Place(owner, lambda: None, self._leave)
            self._give(place)
            return place

    def ask(self, owner: str, given: Callable[[], None]) -> Place:
        """Queue for a place. ``given`` is called when the place is given, perhaps at once, and must not block."""
        place = Place(owner, given, self._leave)
        with self._lock:
            self._queues.setdefault(owner, deque()).append(place)
            self._serve()
        return place

    async def turn(self, owner: str) -> Place:
        """Wait for a place. Call this and the place's ``leave`` on one event loop only."""
        import asyncio  # noqa: PLC0415  child processes import this module, and no event loop

        given = asyncio.Event()
        place = self.ask(owner, given.set)
        try:
            await given.wait()
        except BaseException:
            place.leave()
            raise
        return place

    @contextmanager
    def turn_in_thread(self, owner: str, given_up: Callable[[], bool]) -> Iterator[None]:
        """Block until there is a place. Raises Cancelled once ``given_up`` returns True."""
        given = Event()
        place = self.ask(owner, given.set)
        try:
            while not given.wait(LOOK_SECONDS):
                if given_up():
                    raise Cancelled("the request was cancelled")
            yield
        finally:
            place.leave()

    def _may_have_one(self, owner: str) -> bool:
        return self._held[owner] < self.capacity - len(self._taken)

    def _give(self, place: Place) -> None:
        self._taken.add(place)
        self._held[place.owner] += 1
        place.given()

    def _serve(self) -> None:
        while (owner := next(filter(self._may_have_one, self._queues), None)) is not None:
            self._give(self._queues[owner].popleft())
            if self._queues[owner]:
                self._queues.move_to_end(owner)
            else:
                del self._queues[owner]

    def _leave(self, place: Place) -> None:
        with self._lock:
            if place in self._taken:
                self._taken.remove(place)
                self._held[place.owner] -= 1
                self._held += Counter()  # drops owners that hold none
                self._serve()
            elif place in (queue := self._queues.get(place.owner, deque())):
                queue.remove(place)
                if not queue:
                    del self._queues[place.owner]
