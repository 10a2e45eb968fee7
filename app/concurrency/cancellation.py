"""Work done for a request: its owner, and its cancellation when nobody waits for the result.

The work of a request is a context variable, like cancellation elsewhere in Python: threads and pools carry it along,
and a loop that may run for seconds calls ``check()`` now and then, however deep it lies.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import Cancelled

LOOK_SECONDS = 0.1
"""Seconds between a waiting thread's checks whether its work was given up."""


LONG = 16 * 1024 * 1024
"""Bytes beyond which making or hashing them takes long: 20 ms or more, and seconds if they are scattered."""


class TakesLong(Exception):
    """The work would take longer than it may: start it again as work that may take long."""


class Work:
    """Work for ``owner``, from whose share it takes threads, processes and places. Thread-safe."""

    def __init__(self, owner: str, *, may_take_long: bool = True) -> None:
        self.owner = owner
        self.may_take_long = may_take_long
        self._is_given_up = False

    def give_up(self) -> None:
        """Say that nobody waits for the result any more."""
        self._is_given_up = True

    def is_given_up(self) -> bool:
        return self._is_given_up

    def check(self) -> None:
        """Raise Cancelled once the work was given up."""
        if self.is_given_up():
            raise Cancelled("the request was cancelled")


class SharedWork(Work):
    """Work for several requests, given up when the last of them is."""

    def __init__(self, first: Work) -> None:
        super().__init__(first.owner, may_take_long=first.may_take_long)
        self._wanted_by = [first]

    def join(self, other: Work) -> None:
        self._wanted_by.append(other)

    def is_wanted_by(self, other: Work) -> bool:
        return other in self._wanted_by and not other.is_given_up()

    def is_given_up(self) -> bool:
        return all(work.is_given_up() for work in self._wanted_by)


_current: ContextVar[Work] = ContextVar("work", default=Work("the server"))  # noqa: B039 - nobody gives it up


def current() -> Work:
    """Return the current work; outside of every request, the server's own."""
    return _current.get()


def begin(work: Work) -> None:
    """Make ``work`` the current work of this task from now on."""
    _current.set(work)


@contextmanager
def doing(work: Work) -> Iterator[None]:
    token = _current.set(work)
    try:
        yield
    finally:
        _current.reset(token)


def check() -> None:
    """Raise Cancelled if nobody waits for the current work any more."""
    _current.get().check()


def expect(nbytes: int) -> None:
    """Announce that ``nbytes`` have to be made or hashed next. Raises TakesLong if there is no time for that."""
    if nbytes > LONG and not _current.get().may_take_long:
        raise TakesLong
