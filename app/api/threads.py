"""Threads for what may take seconds, lent fairly among callers, and the end of such work when its client goes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
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
    """``capacity`` threads. Calls that wait for one take turns by the owner of their work, as FairPlaces has it.

    Made on the event loop. ``running`` and ``waiting`` are told how many calls are.
    """

    def __init__(self, capacity: int, running: Gauge, waiting: Gauge) -> None:
        self.places = FairPlaces(capacity)
        self._threads = CapacityLimiter(capacity)
        self._running = running
        self._waiting = waiting

    async def run(self, call: Callable[[], T]) -> T:
        """``call`` in a thread. Cancelled while it runs, this gives up the current work and ends at once; the thread is
        not lent again before the call has ended.
        """
        work = current()
        with self._waiting.track_inprogress():
            place = await self.places.turn(work.owner)
        self._running.inc()
        calling = asyncio.ensure_future(to_thread.run_sync(call, limiter=self._threads))

        def ended(call: asyncio.Future[T]) -> None:
            place.leave()
            self._running.dec()
            if not call.cancelled():
                call.exception()  # nobody may be left to ask for it

        calling.add_done_callback(ended)
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            work.give_up()
            raise


async def unless_gone(request: Request, answer: Awaitable[T]) -> T:
    """What ``answer`` comes to, for a request of which nothing is left to read. Raises Cancelled when its client goes
    away first, and then ``answer`` is cancelled.
    """
    if _waits_to_continue(request):
        return await answer
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise Cancelled("the client has gone")
    finally:
        for task in (answering, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):  # what it failed with was raised, or is moot
                await task


async def disconnected(receive: Receive) -> None:
    """Wait until the client has gone. What still comes of its request is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _waits_to_continue(request: Request) -> bool:
    """To ask for more from such a client would tell it to send a body that nobody wants."""
    return request.method in {"GET", "HEAD"} and "Expect" in request.headers
