"""A pool of threads whose callers take turns."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from .cancellation import current

P = ParamSpec("P")
T = TypeVar("T")


class FairPool(ThreadPoolExecutor):
    """A pool that runs at most ``threads`` calls of one owner at a time, and has one thread more for the others: a new
    owner waits for another's call to end only if two others take all threads.

    A call belongs to the owner of the work in which it is submitted, and runs as part of that work. Owners take turns,
    and the calls of each run in order.
    """

    def __init__(self, threads: int, name: str, initializer: Callable[[], None] | None = None) -> None:
        super().__init__(threads + 1, thread_name_prefix=name, initializer=initializer)
        self._most = threads
        self._queues: OrderedDict[str, deque[tuple[Future[Any], Callable[[], None]]]] = OrderedDict()
        self._running: Counter[str] = Counter()
        self._passed = 0  # looks that found calls, but no owner that may have another thread
        self._fair_lock = Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call. Raises RuntimeError, and calls nothing, if the pool is closed or no thread can be started."""
        owner, context, future = current().owner, copy_context(), Future[T]()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = context.run(fn, *args, **kwargs)
                except BaseException as error:  # noqa: BLE001 - the future passes it on
                    future.set_exception(error)
                else:
                    future.set_result(result)

        entry = future, call
        with self._fair_lock:
            self._queues.setdefault(owner, deque()).append(entry)
        try:
            super().submit(self._look)
        except BaseException:
            if self._withdraw(owner, entry):
                raise
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            with self._fair_lock:
                left, self._queues = self._queues, OrderedDict()
            for queue in left.values():
                for future, _ in queue:
                    future.cancel()
        super().shutdown(wait, cancel_futures=cancel_futures)

    def _look(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Run one call whose owner may have another thread, if any. Return whether to look for another call."""
        with self._fair_lock:
            owner = next((each for each in self._queues if self._running[each] < self._most), None)
            if owner is None:
                self._passed += bool(self._queues)  # else the call was withdrawn
                return False
            _, call = self._queues[owner].popleft()
            if self._queues[owner]:
                self._queues.move_to_end(owner)
            else:
                del self._queues[owner]
            self._running[owner] += 1
        call()
        with self._fair_lock:
            self._running[owner] -= 1
            self._running += Counter()  # drops owners without a call
            go_on = self._passed > 0
            self._passed -= go_on
            return go_on

    def _withdraw(self, owner: str, entry: tuple[Future[Any], Callable[[], None]]) -> bool:
        """Remove ``entry``, and return whether it was still there."""
        with self._fair_lock:
            queue = self._queues.get(owner, deque())
            if entry not in queue:
                return False
            queue.remove(entry)
            if not queue:
                del self._queues[owner]
            return True
