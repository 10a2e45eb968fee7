"""A small cache of what was expensive to compute, with one computation per key however many ask at once."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """The values used last, up to ``capacity`` in the unit of ``weigh``. Safe to share between threads."""

    def __init__(self, capacity: int, weigh: Callable[[T], int]) -> None:
        self._capacity = capacity
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[str, T] = OrderedDict()
        self._makers: dict[str, Lock] = {}
        self._lock = Lock()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """The value of ``key``, made if need be. Whoever asks meanwhile waits for the one that makes it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            maker = self._makers.setdefault(key, Lock())
        with maker:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            try:
                value = make()
            except BaseException:
                with self._lock:
                    self._makers.pop(key, None)
                raise
            with self._lock:
                self._makers.pop(key, None)
                if key in self._values:
                    self._weight -= self._weigh(self._values.pop(key))
                self._values[key] = value
                self._weight += self._weigh(value)
                while self._weight > self._capacity and len(self._values) > 1:
                    _, old = self._values.popitem(last=False)
                    self._weight -= self._weigh(old)
            return value
