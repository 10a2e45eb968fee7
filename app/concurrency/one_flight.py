"""One run of equal work for all tasks that want it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class OneFlight(Generic[T]):
    """The work that is being done, by key. A caller joins a run that has begun: its result may be as old as that."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``work``, or of the running work with the same key. Raises its errors."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(_awaited(work))
            task.add_done_callback(lambda _: self._running.pop(key))
        return await asyncio.shield(task)


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
