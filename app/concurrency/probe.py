"""Checks of a part that may hang: each caller has its answer in time, and no more than one thread waits."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Probe(Generic[T]):
    """A blocking ``check`` that runs at most once at a time, in a daemon thread, which ends no later than the process.

    Callers that come while it runs share its result. Create and use it on one event loop.
    """

    def __init__(self, name: str, check: Callable[[], T], patience: float) -> None:
        self._name = name
        self._check = check
        self._patience = patience
        self._running: asyncio.Future[T] | None = None
        self._began = 0.0

    async def ask(self) -> T:
        """Return the result of the check, and raise its errors. Raises TimeoutError ``patience`` seconds after the
        check began: at once, if it began earlier and still hangs.
        """
        if self._running is None:
            self._running, self._began = self._start(), time.monotonic()
        left = self._began + self._patience - time.monotonic()
        return await asyncio.wait_for(asyncio.shield(self._running), max(0.0, left))

    def _start(self) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def ended(result: T | None, error: Exception | None) -> None:
            self._running = None
            if error is None:
                answer.set_result(result)  # type: ignore[arg-type]  # None only where T has None
            else:
                answer.set_exception(error)
                answer.exception()  # marks it as retrieved: no caller may be left

        def run() -> None:
            result, error = None, None
            try:
                result = self._check()
            except Exception as failure:  # noqa: BLE001 - whoever asks gets it
                error = failure
            with suppress(RuntimeError):  # the loop is closed: the server has stopped meanwhile
                loop.call_soon_threadsafe(ended, result, error)

        threading.Thread(target=run, name=f"probe of the {self._name}", daemon=True).start()
        return answer
