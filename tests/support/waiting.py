"""Waiting for what a server does in its own time, without a bound that a busy machine can miss."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.support.server import Server

LONG_ENOUGH = 60.0
_PAUSE = 0.02


def assert_soon(claim: Callable[[], bool]) -> None:
    """Wait until ``claim`` holds; fail after LONG_ENOUGH seconds."""
    deadline = time.monotonic() + LONG_ENOUGH
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(_PAUSE)


async def awaited_soon(claim: Callable[[], Awaitable[bool]]) -> None:
    """Do as ``assert_soon``, in an event loop."""
    deadline = time.monotonic() + LONG_ENOUGH
    while not await claim():
        assert time.monotonic() < deadline
        await asyncio.sleep(_PAUSE)


def is_spooling(server: Server) -> bool:
    """Return whether an upload is arriving, or being cleaned up after."""
    return any((server.data_dir / "spool").iterdir())


def requests_ended(server: Server, path: str) -> int:
    """Return how many requests of ``path`` the server has finished, clean-up included: the answer comes before that."""
    return sum(request["path"] == path for request in server.requests)
