"""The memory budget of a worker's requests, shared among their callers.

A transfer reserves its memory before it takes the first byte, and waits until that is free; its client is not read from
meanwhile. One caller may use free memory, up to half of the memory that the others have left. So the next caller finds
room, whatever one caller holds, and for however long.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ..errors import ServerBusy

PATIENCE = 30.0
"""Seconds that a request waits for memory before it is told to come back."""


@dataclass(eq=False, slots=True)
class _Waiting:
    nbytes: int
    caller: str
    granted: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryBudget:
    """A budget of ``nbytes`` in all. For one event loop."""

    def __init__(self, nbytes: int, patience: float = PATIENCE) -> None:
        self._nbytes = nbytes
        self._patience = patience
        self._held: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []

    @property
    def held(self) -> int:
        """Bytes that are reserved."""
        return self._held.total()

    @asynccontextmanager
    async def reserved(self, nbytes: int, caller: str) -> AsyncIterator[None]:
        """Hold ``nbytes`` for ``caller``, at most the whole budget. Raises ServerBusy."""
        one = _Waiting(min(nbytes, self._nbytes), caller)
        self._waiting.append(one)
        self._grant()
        try:
            await self._wait_for(one)
            yield
        finally:
            self._release(one)

    async def _wait_for(self, one: _Waiting) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await one.granted.wait()
        except TimeoutError:
            raise ServerBusy("the memory that this server has for requests is in use; retry later") from None

    def _release(self, one: _Waiting) -> None:
        if one.granted.is_set():
            self._held[one.caller] -= one.nbytes
            if not self._held[one.caller]:
                del self._held[one.caller]
        else:
            self._waiting.remove(one)
        self._grant()

    def _grant(self) -> None:
        """Grant the reservations that are possible now, the longest waiting first."""
        for one in list(self._waiting):
            free = self._nbytes - self.held
            if one.nbytes > free:
                return  # released memory is kept for this one
            mine = self._held[one.caller]
            if mine and mine + one.nbytes > (free + mine) // 2:
                continue
            self._held[one.caller] += one.nbytes
            self._waiting.remove(one)
            one.granted.set()
