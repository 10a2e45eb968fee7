"""Calls that run in the threads of a pool, one at a time and in order."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock


class InOrder:
    """The calls of one writer. Each call is a separate task in ``pool``, so that many writers take turns there.

    After a failed call no later call runs: each fails with the same error. Calls that get no thread fail too.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._lock = Lock()
        self._waiting: deque[tuple[Future[None], Callable[[], object]]] = deque()
        self._busy = False
        self._error: BaseException | None = None

    def submit(self, call: Callable[[], object]) -> Future[None]:
        """Queue ``call``. Raises nothing: the future carries any error."""
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
            if not self._waiting:  # given up: a pool queues a task even if it fails to start a thread
                return
            future, call = self._waiting.popleft()
            error = self._error
        if error is None:
            try:
                call()
            except BaseException as failure:  # noqa: BLE001 - the future carries the error
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
