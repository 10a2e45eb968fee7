"""Queues of a process's writers, one for each namespace."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from .dialect import BUSY_TIMEOUT, busy


class Queues:
    """One thread at a time of each namespace gets a connection, because it would hold the connection while it waits
    for the others: a busy namespace must not leave the rest without any.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    @contextmanager
    def turn(self, namespace: str | None) -> Iterator[None]:
        """Wait for the turn of this thread, until the block ends. Raises StoreError, code ``catalog-busy``."""
        if namespace is None:
            yield
            return
        with self._guard:
            lock = self._locks.setdefault(namespace, threading.Lock())
        if not lock.acquire(timeout=BUSY_TIMEOUT):
            raise busy()
        try:
            yield
        finally:
            lock.release()
