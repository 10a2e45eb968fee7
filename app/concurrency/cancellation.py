"""Work done for a request: on whose account, and for as long as somebody waits for its result.

The work of a request is a context variable, as cancellation is elsewhere in Python: threads and pools carry it along,
and a loop that may run for seconds asks ``check()`` now and then, however deep it lies.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import Cancelled

LOOK_SECONDS = 0.1
"""How often a thread that waits looks whether its work was given up."""


LONG = 16 * 1024 * 1024
"""Bytes beyond which to make or to hash them takes long: from 20 ms on, and seconds where they lie apart."""


class TakesLong(Exception):
    """The work goes on for longer than it has been given time for: it is to be begun again, as work that may."""


class Work:
    """Work for ``owner``, whose share of threads, processes and places it takes. For several threads at once."""

    def __init__(self, owner: str, *, may_take_long: bool = True) -> None:
        self.owner = owner
        self.may_take_long = may_take_long
        self._is_given_up = False

    def give_up(self) -> None:
        """Nobody waits for the result any more."""
        self._is_given_up = True

    def is_given_up(self) -> bool:
        return self._is_given_up

    def check(self) -> None:
        """Raises Cancelled once the work was given up."""
        if self.is_given_up():
            raise Cancelled("nobody waits for this any more")


class SharedWork(Work):
    """Work whose result several requests wait for: it is given up when the last of them is."""

    def __init__(self, first: Work) -> None:
        super().__init__(first.owner, may_take_long=first.may_take_long)
        self._wanted_by = [first]

    def join(self, other: Work) -> None:
        self._wanted_by.append(other)

    def is_wanted_by(self, other: Work) -> bool:
        return other in self._wanted_by and not other.is_given_up()

    def is_given_up(self) -> bool:
        return all(work.is_given_up() for work in self._wanted_by)


_current: ContextVar[Work] = ContextVar("work", default=Work("the server"))  # noqa: B039 - which nobody gives up


def current() -> Work:
    """The work that is being done here; outside of every request, the server's own."""
    return _current.get()


def begin(work: Work) -> None:
    """From here on, ``work`` is what is done in this task."""
    _current.set(work)


@contextmanager
def doing(work: Work) -> Iterator[None]:
    token = _current.set(work)
    try:
        yield
    finally:
        _current.reset(token)


def check() -> None:
    """Raises Cancelled if nobody waits for the current work any more."""
    _current.get().check()


def expect(nbytes: int) -> None:
    """Say that so many bytes have to be made or hashed next. Raises TakesLong where there is no time for that."""
    if nbytes > LONG and not _current.get().may_take_long:
        raise TakesLong
