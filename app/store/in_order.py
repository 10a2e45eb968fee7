"""Calls that run in the threads of a pool, one at a time and in order."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class InOrder:
    """For one writer of many: each call is a task of its own in ``pool``, so that all of them take turns there.

    After a call that failed none is made: they all fail, as it did.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._lock = Lock()
        self._waiting: deque[tuple[Future[None], Callable[[], object]]] = deque()
        self._busy = False
        self._error: BaseException | None = None

    def submit(self, call: Callable[[], object]) -> Future[None]:
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((future, call))
            busy, self._busy = self._busy, True
        if not busy:
            self._pool.submit(self._run_next)
        return future

    def _run_next(self) -> None:
        future, call = self._waiting.popleft()
        try:
            if self._error is None:
                call()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
            self._error = error
        with self._lock:
            self._busy = bool(self._waiting)
            if self._busy:
                self._pool.submit(self._run_next)
        if self._error is None:
            future.set_result(None)
        else:
            future.set_exception(self._error)
