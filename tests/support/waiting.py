"""Waiting for what a server does in its own time, without a bound that a busy machine can miss."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

from tests.support.server import Server

T = TypeVar("T")

LONG_ENOUGH = 180.0


def _pause_after(waited: float) -> float:
    """Return the seconds until the next look: a tenth of what has passed, so that a long wait costs little."""
    return min(max(waited / 10, 0.01), 0.2)


def assert_soon(claim: Callable[[], bool]) -> None:
    """Wait until ``claim`` holds; fail after LONG_ENOUGH seconds."""
    began = time.monotonic()
    while not claim():
        waited = time.monotonic() - began
        assert waited < LONG_ENOUGH
        time.sleep(_pause_after(waited))


async def awaited_soon(claim: Callable[[], Awaitable[bool]]) -> None:
    """Do as ``assert_soon``, in an event loop."""
    began = time.monotonic()
    while not await claim():
        waited = time.monotonic() - began
        assert waited < LONG_ENOUGH
        await asyncio.sleep(_pause_after(waited))


class Pace:
    """The pace of a client that is slow and steady. ``longest`` is the longest time between two steps, in seconds.

    At every step it calls ``other``, which takes long if the server is held up.
    """

    def __init__(self, other: Callable[[], object]) -> None:
        self.longest = 0.0
        self._other = other
        self._last = time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)
        self._other()
        now = time.monotonic()
        self.longest, self._last = max(self.longest, now - self._last), now


def at_a_steady_pace(attempt: Callable[[Pace], None], other: Callable[[], object], longest: float) -> None:
    """Make an attempt that succeeds, unless a pause was longer than ``longest`` seconds: then make another one.

    It is for tests of a server that waits for its clients for a short time, on a machine that may hold up either.
    """
    deadline = time.monotonic() + LONG_ENOUGH
    while True:
        pace = Pace(other)
        try:
            return attempt(pace)
        except (AssertionError, OSError, httpx.TransportError):
            if pace.longest <= longest or time.monotonic() > deadline:
                raise


def while_it_lasts(attempt: Callable[[float], T | None], seconds: float = 2.0) -> T:
    """Return what ``attempt(seconds)`` returns; ask with twice the seconds while that is None.

    It is for what ends after some seconds, and has to be used before: on a busy machine those may be over by then.
    """
    while (found := attempt(seconds)) is None:
        assert seconds < LONG_ENOUGH
        seconds *= 2
    return found


def until_ready(http: httpx.Client) -> dict:
    """Wait until the server says that it is ready, and return its answer.

    It is not ready while a ping takes more than 2.5 seconds, which may happen to any server on a busy machine.
    """
    answers: list[httpx.Response] = []

    def is_ready() -> bool:
        answers.append(http.get("/readyz"))
        return answers[-1].status_code == 200

    assert_soon(is_ready)
    return answers[-1].json()


def downloads_ended(server: Server) -> bool:
    """Return whether the server has finished all downloads: it stores checksums after the last byte."""
    with server.client() as http:
        return "stateroom_open_streams 0.0" in http.get("/metrics").text


def is_spooling(server: Server) -> bool:
    """Return whether an upload is arriving, or being cleaned up after."""
    return any((server.data_dir / "spool").iterdir())


def requests_ended(server: Server, path: str) -> int:
    """Return how many requests of ``path`` the server has finished, clean-up included: the answer comes before that."""
    return sum(request["path"] == path for request in server.requests)
