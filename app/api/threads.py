"""Threads for blocking calls, shared fairly among callers, and cancellation when a client disconnects."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from traceback import clear_frames
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from prometheus_client import Gauge
from starlette.types import Receive

from ..concurrency.cancellation import current
from ..concurrency.fair_admission import FairPlaces
from ..errors import Cancelled

T = TypeVar("T")


class FairThreads:
    """A pool of ``capacity`` threads. Waiting calls take turns by the owner of their work, as in FairPlaces.

    Create it on the event loop. The gauges ``running`` and ``waiting`` count the calls.
    """

    def __init__(self, capacity: int, running: Gauge, waiting: Gauge) -> None:
        self.places = FairPlaces(capacity)
        self._threads = CapacityLimiter(capacity)
        self._running = running
        self._waiting = waiting

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` in a thread. If cancelled meanwhile, give up the current work and end at once; the thread stays
        taken until ``call`` has ended.
        """
        work = current()
        with self._waiting.track_inprogress():
            place = await self.places.turn(work.owner)
        self._running.inc()
        calling = asyncio.ensure_future(to_thread.run_sync(_freeing, call, limiter=self._threads))

        def ended(call: asyncio.Future[T]) -> None:
            place.leave()
            self._running.dec()
            if not call.cancelled():
                call.exception()  # marks it as retrieved: no caller may be left

        calling.add_done_callback(ended)
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            work.give_up()
            raise


def _freeing(call: Callable[[], T]) -> T:
    """Run ``call``. If it fails, free the local variables of its frames here: they may be a body of 400,000 keys, and
    the event loop would free them with the error's traceback, which takes it 100 ms.
    """
    try:
        return call()
    except BaseException as error:
        clear_frames(error.__traceback__)
        raise


async def unless_gone(request: Request, answer: Awaitable[T]) -> T:
    """Return the result of ``answer``, for a request whose body has been read. If the client disconnects first, cancel
    ``answer`` and raise Cancelled.
    """
    if _waits_to_continue(request):
        return await answer
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise Cancelled("the client disconnected")
    finally:
        for task in (answering, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):  # its error was raised, or no longer matters
                await task


async def disconnected(receive: Receive) -> None:
    """Wait until the client disconnects, and drop the rest of its request."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _waits_to_continue(request: Request) -> bool:
    """Tell whether the client waits for 100 (Continue): receiving would request a body that nobody wants."""
    return request.method in {"GET", "HEAD"} and "Expect" in request.headers
