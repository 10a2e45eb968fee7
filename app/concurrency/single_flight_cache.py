"""A small cache of expensive values, with one computation per key for all concurrent callers."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Event, Lock
from typing import Generic, TypeVar

from .cancellation import LOOK_SECONDS, SharedWork, TakesLong, current, doing

T = TypeVar("T")


class _Making:
    """A value that is being made, and the shared work of its callers."""

    def __init__(self, work: SharedWork) -> None:
        self.work = work
        self.ended = Event()


class Cache(Generic[T]):
    """An LRU cache of up to ``capacity``, in the unit of ``weigh``. Thread-safe."""

    def __init__(self, capacity: int, weigh: Callable[[T], int]) -> None:
        self._capacity = capacity
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[str, T] = OrderedDict()
        self._making: dict[str, _Making] = {}
        self._lock = Lock()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """Return the value of ``key``, made if need be. Concurrent callers wait for the one that makes it, and make it
        themselves if that one fails.

        The value is made for all callers: the work is given up when the last of them gives up. Raises the errors of
        ``make``, Cancelled, and TakesLong if there is no time to wait for work that may take long.
        """
        work = current()
        while True:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    return self._values[key]
                making = self._making.get(key)
                if making is None:
                    mine = self._making[key] = _Making(SharedWork(work))
                    break
                if making.work.may_take_long and not work.may_take_long:
                    raise TakesLong
                making.work.join(work)
            while not making.ended.wait(LOOK_SECONDS):
                work.check()
        try:
            with doing(mine.work):
                value = make()
            with self._lock:
                self._keep(key, value)
        finally:
            with self._lock:
                del self._making[key]
            mine.ended.set()
        work.check()  # the value may have been made for other callers only
        return value

    def drop(self, key: str) -> None:
        """Forget the value of ``key``, if there is one."""
        with self._lock:
            if (value := self._values.pop(key, None)) is not None:
                self._weight -= self._weigh(value)

    def _keep(self, key: str, value: T) -> None:
        self._values[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._capacity and len(self._values) > 1:
            _, old = self._values.popitem(last=False)
            self._weight -= self._weigh(old)
