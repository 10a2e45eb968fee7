"""Calls that run in the threads of a pool, one at a time and in order."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock


class InOrder:
    """For one of many writers: each call is a task of its own in ``pool``, so that all of them take turns there.

    After a call that failed none is made: they all fail, as it did. So do those that no thread is left for.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._lock = Lock()
        self._waiting: deque[tuple[Future[None], Callable[[], object]]] = deque()
        self._busy = False
        self._error: BaseException | None = None

    def submit(self, call: Callable[[], object]) -> Future[None]:
        """Raises nothing: what goes wrong is told by the future."""
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((future, call))
            was_busy, self._busy = self._busy, True
        if not was_busy:
            self._hand_over()
        return future

    def _hand_over(self) -> None:
        try:
            self._pool.submit(self._run_next)
        except RuntimeError as error:  # the pool is closed, or no thread can be started
            with self._lock:
                self._error, self._busy = self._error or error, False
                given_up, self._waiting = self._waiting, deque()
            for future, _ in given_up:
                future.set_exception(error)

    def _run_next(self) -> None:
        with self._lock:
            if not self._waiting:  # given up: a pool that fails to start a thread has queued its task all the same
                return
            future, call = self._waiting.popleft()
            error = self._error
        if error is None:
            try:
                call()
            except BaseException as failure:  # noqa: BLE001 - whoever waits for it is told
                error = failure
        with self._lock:
            self._error, self._busy = error, bool(self._waiting)
            goes_on = self._busy
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        if goes_on:
            self._hand_over()
