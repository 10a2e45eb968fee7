"""Retries of failed requests: their limits, their random waits, and their log messages."""

from __future__ import annotations

import math
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from .._errors import InvalidRequest, StateroomError
from .._log import LOG
from .._printable import one_line

RETRY_SECONDS = 60.0
"""Default time to retry while a server is away, in seconds: longer than most restarts."""

FIRST_WAIT, LONGEST_BACKOFF = 0.2, 5.0
LONGEST_WAIT = 60.0  # even if a server asks for more
LONGEST_QUEUE = 600.0  # a server with as many uploads as it can take is healthy, and worth the wait
SAID_AGAIN = 30.0  # seconds between two log messages

NO_SUCH_NAME = {getattr(socket, name, None) for name in ("EAI_NONAME", "EAI_NODATA")}


@dataclass(frozen=True)
class Limit:
    """The limit of retries: ``tries`` after the first try, or if that is None, ``seconds``."""

    tries: int | None
    seconds: float = RETRY_SECONDS

    @property
    def is_none(self) -> bool:
        return self.tries == 0 or (self.tries is None and self.seconds <= 0)

    def __str__(self) -> str:
        if self.tries is None and math.isinf(self.seconds):
            return "until it responds"
        return f"for up to {self.seconds:g} s" if self.tries is None else f"up to {self.tries} times"


class Notice:
    """Logs that the server at ``url`` fails: at the first failure, and rarely after that, for all threads together."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._said: float | None = None

    def give(self, error: StateroomError, limit: object) -> None:
        with self._lock:
            now = time.monotonic()
            if self._said is not None and now - self._said < SAID_AGAIN:
                return
            self._said = now
        what = one_line(error.detail)
        what = what if self._url in what else f"the server at {self._url} responds: {what}"
        LOG.warning("%s%s Retrying %s.", what, "" if what.endswith(("?", ".")) else ".", limit)


class RetryPolicy:
    """The retries of one operation. ``failed`` waits before the next try, or raises when none is left; ``queued`` is
    for a healthy server with too many uploads at once, and has a limit of its own.
    """

    def __init__(
        self,
        limit: Limit,
        notice: Notice,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._notice = notice
        self._sleep = sleep
        self._clock = clock
        self._used = 0
        self._since: float | None = None
        self._queued = 0.0

    def succeeded(self) -> None:
        """Record progress: the next failure has all retries again."""
        self._used, self._since = 0, None

    def failed(self, error: StateroomError, *, wait: float | None = None) -> None:
        """Wait before the next try, or raise ``error`` if no try is left.

        ``wait`` is the number of seconds that the server asked for, if any. A random wait is added, whose maximum
        doubles at each try up to LONGEST_BACKOFF, so that clients that failed together do not come back together.
        """
        now = self._clock()
        since = self._since = now if self._since is None else self._since
        left = self._limit.seconds - (now - since)
        if self._limit.is_none or (left <= 0 if self._limit.tries is None else self._used >= self._limit.tries):
            raise self._with_tries(error, now - since) from None
        self._notice.give(error, self._limit)
        pause = random.uniform(0, min(FIRST_WAIT * 2**self._used, LONGEST_BACKOFF))
        pause += 0.0 if wait is None else min(wait, LONGEST_WAIT)
        self._used += 1
        self._sleep(pause if self._limit.tries is not None else min(pause, left))

    def queued(self, error: StateroomError, wait: float) -> None:
        """Wait about ``wait`` seconds, with a random spread: waiting clients must not come back all at once."""
        if self._limit.is_none or self._queued >= LONGEST_QUEUE:
            raise error
        self._notice.give(error, f"for up to {LONGEST_QUEUE:g} s")
        wait = max(0.05, min(wait, LONGEST_WAIT)) * random.uniform(0.75, 1.25)
        self._queued += wait
        self._sleep(wait)

    def _with_tries(self, error: StateroomError, seconds: float) -> StateroomError:
        """Add the number of tries and the time they took to the error."""
        if self._used:
            error.detail += f" (tried {self._used + 1} times in {seconds:.1f} s)"
            error.args = (error.detail,)
        return error


def is_hopeless(failure: BaseException, *, was_reached: bool) -> bool:
    """Tell whether another try would fail alike: a request that cannot be sent, a certificate that is not trusted, or,
    if the server was never reached, a host name that does not exist (it is probably mistyped; names of servers that
    were reached can vanish during a restart).
    """
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, (httpx.LocalProtocolError, httpx.UnsupportedProtocol, ssl.SSLCertVerificationError)):
            return True
        if isinstance(cause, socket.gaierror) and cause.errno in NO_SUCH_NAME and not was_reached:
            return True
        cause = cause.__cause__ or cause.__context__  # httpcore raises its errors while it handles the system's
    return False


def retry_after(value: str | None) -> float | None:
    """Parse a Retry-After header into seconds, from the number or the date of RFC 9110, 10.2.3."""
    if value is None:
        return None
    try:
        return (
            float(int(value)) if value.isdigit() else max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        )
    except (ValueError, TypeError, OverflowError):
        return None


def seconds_of(given: float | None) -> float:
    """Return the seconds to retry: ``given``, STATEROOM_RETRY_SECONDS or the default. Raises InvalidRequest."""
    said = given if given is not None else os.environ.get("STATEROOM_RETRY_SECONDS") or RETRY_SECONDS
    try:
        seconds = float(said)
        if seconds >= 0:
            return seconds
    except ValueError:
        pass
    raise InvalidRequest(f"retry_seconds={said!r} is not a number of seconds")
