"""How long something that fails is tried again, how the tries are spread, and what the log says of it."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from .._errors import StateroomError
from .._log import LOG
from .._printable import one_line

RETRY_SECONDS = 60.0
"""How long a server may be away unless a client is told otherwise: longer than most restarts."""

FIRST_WAIT, LONGEST_BACKOFF = 0.2, 5.0
LONGEST_WAIT = 60.0  # whatever a server asks for
LONGEST_QUEUE = 600.0  # a server that takes in as many uploads as it can is well, and worth waiting for
SAID_AGAIN = 30.0  # seconds between two lines in the log

NO_SUCH_NAME = {getattr(socket, name, None) for name in ("EAI_NONAME", "EAI_NODATA")}


@dataclass(frozen=True)
class Limit:
    """Try again until ``tries`` tries have failed after the first, or where that is None, for ``seconds``."""

    tries: int | None
    seconds: float = RETRY_SECONDS

    @property
    def is_none(self) -> bool:
        return self.tries == 0 or (self.tries is None and self.seconds <= 0)

    def __str__(self) -> str:
        return f"for up to {self.seconds:g} s" if self.tries is None else f"up to {self.tries} times"


class Notice:
    """Tells the log that a server at ``url`` fails: when it begins to, and rarely after that, whoever notices."""

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
        what = what if self._url in what else f"the server at {self._url} answers: {what}"
        LOG.warning("%s%s Trying again %s.", what, "" if what.endswith(("?", ".")) else ".", limit)


class RetryPolicy:
    """How often one thing is tried again. ``failed`` waits before the next try, or raises when none is left;
    ``queued`` is for a server that is well but has too many at once, which has a limit of its own.
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
        """Something moved: what fails from now on is a failure of its own."""
        self._used, self._since = 0, None

    def failed(self, error: StateroomError, *, wait: float | None = None) -> None:
        """``wait`` is how many seconds the server asked for, if it did. A random time goes by too, which may be
        twice as long at each try, up to LONGEST_BACKOFF: clients that failed together do not come back together.
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
        """Not all who wait come back at the same moment."""
        if self._limit.is_none or self._queued >= LONGEST_QUEUE:
            raise error
        self._notice.give(error, f"for up to {LONGEST_QUEUE:g} s")
        wait = max(0.05, min(wait, LONGEST_WAIT)) * random.uniform(0.75, 1.25)
        self._queued += wait
        self._sleep(wait)

    def _with_tries(self, error: StateroomError, seconds: float) -> StateroomError:
        """The error, which says how long was tried."""
        if self._used:
            error.detail += f" (tried {self._used + 1} times in {seconds:.1f} s)"
            error.args = (error.detail,)
        return error


def is_hopeless(failure: BaseException, *, was_reached: bool) -> bool:
    """Tell whether another try would fail alike: a request that cannot be sent, a certificate that is not trusted, and,
    where the server was never reached, a name that does not exist (somebody mistyped it; but names of servers that were
    there go and come back while they are restarted).
    """
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, (httpx.LocalProtocolError, httpx.UnsupportedProtocol, ssl.SSLCertVerificationError)):
            return True
        if isinstance(cause, socket.gaierror) and cause.errno in NO_SUCH_NAME and not was_reached:
            return True
        cause = cause.__cause__
    return False


def retry_after(value: str | None) -> float | None:
    """Seconds, from the number or the date of RFC 9110, 10.2.3."""
    if value is None:
        return None
    try:
        return (
            float(int(value)) if value.isdigit() else max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        )
    except (ValueError, TypeError, OverflowError):
        return None
