"""Worker processes: forked, watched, restarted and stopped by a parent that does nothing else.

The parent forks before it has made a thread or opened a database, so a worker inherits neither. The parent is one loop
over three kinds of events: a signal, a worker that is ready, and the time to start another.
"""

import ctypes
import logging
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ..errors import StateroomError

_log = logging.getLogger("stateroom.workers")

STEADY_SECONDS = 10.0
"""Seconds; a worker that lived for less died "at once". Each such death in a row delays the next start longer."""

LONGEST_DELAY = 30.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_PR_SET_PDEATHSIG = 1

Work = Callable[[int, Callable[[], None]], None]
"""The function of a worker, given its slot (0, 1, ...) and a callback for when it is ready. It ends on SIGTERM."""


def delay_after(deaths: int) -> float:
    """Return the seconds before restarting a worker that died at once ``deaths`` times in a row."""
    return 0.0 if deaths <= 1 else min(2.0 ** (deaths - 2), LONGEST_DELAY)


def end_by(signum: int) -> None:
    """End this process as the signal would, if unhandled."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


@dataclass(slots=True)
class _Slot:
    """The place of one worker after another. ``pid`` is None between two workers, until ``due``."""

    number: int
    pid: int | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """The parent of ``count`` processes that run ``work``.

    ``on_ready`` is called once, when all workers are ready for the first time; ``on_end`` with the slot of each worker
    that has ended; ``on_stop`` when the workers are told to stop. Workers that have not ended ``patience`` seconds
    later are killed, and so are all at a second signal.
    """

    count: int
    work: Work
    on_ready: Callable[[], None]
    on_end: Callable[[int], None]
    on_stop: Callable[[], None]
    patience: float
    _slots: Sequence[_Slot] = field(init=False)
    _ready: set[int] = field(init=False, default_factory=set)
    _serving: bool = field(init=False, default=False)
    _failed: bool = field(init=False, default=False)
    _kill_at: float | None = field(init=False, default=None)
    _second: int | None = field(init=False, default=None)
    _news: int = field(init=False, default=-1)
    _readiness: tuple[int, int] = field(init=False, default=(-1, -1))
    _lifeline: tuple[int, int] = field(init=False, default=(-1, -1))

    def __post_init__(self) -> None:
        self._slots = [_Slot(number) for number in range(self.count)]

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, and then until every worker has ended.

        A second signal ends the workers and this process at once. Raises StateroomError when a worker ends before all
        were ready: its successors would fail, too.
        """
        self._lifeline, self._readiness = os.pipe(), os.pipe()
        with _signals_as_bytes() as self._news, selectors.DefaultSelector() as selector:
            selector.register(self._news, selectors.EVENT_READ, self._signalled)
            selector.register(self._readiness[0], selectors.EVENT_READ, self._heard_from)
            while self._alive or self._kill_at is None:
                self._start_what_is_due()
                for key, _ in selector.select(self._patience()):
                    key.data()
                self._reap()
                if self._kill_at is not None and time.monotonic() >= self._kill_at:
                    self._kill()
        for fd in (*self._lifeline, *self._readiness):
            os.close(fd)
        if self._second is not None:
            end_by(self._second)
        if self._failed:
            raise StateroomError("a worker ended before it was ready; see the log for the reason")

    @property
    def _alive(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.pid is not None]

    def _patience(self) -> float | None:
        """Return the seconds until something has to be done without an event."""
        if self._kill_at is not None:
            return max(0.0, self._kill_at - time.monotonic())
        due = [slot.due for slot in self._slots if slot.pid is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_what_is_due(self) -> None:
        if self._kill_at is None:
            for slot in self._slots:
                if slot.pid is None and slot.due <= time.monotonic():
                    self._start(slot)

    def _start(self, slot: _Slot) -> None:
        parent = os.getpid()
        # No signal between the fork and the child's own handlers: the parent would get it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._be_worker(slot.number, parent, blocked)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        slot.pid, slot.started = pid, time.monotonic()

    def _be_worker(self, number: int, parent: int, mask: Iterable[int]) -> None:
        """Run the child process. Never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all; the parent passes it on as SIGTERM
            os.close(self._lifeline[1])
            _end_with(parent, self._lifeline[0])
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self.work(number, lambda: _tell(self._readiness[1], number))
            code = 0
        except SystemExit as end:  # uvicorn could not start, and has said why
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001 - the log tells why; the parent sees only the exit code
            _log.exception("worker %d failed", number)
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _heard_from(self) -> None:
        self._ready.update(os.read(self._readiness[0], 4096))
        if len(self._ready) == self.count and not self._serving and self._kill_at is None:
            self._serving = True
            self.on_ready()

    def _signalled(self) -> None:
        for signum in os.read(self._news, 4096):
            if signum in {signal.SIGTERM, signal.SIGINT}:
                if self._kill_at is None:
                    self._stop()
                else:
                    self._second = self._second or signum
                    self._kill()

    def _stop(self) -> None:
        self._kill_at = time.monotonic() + self.patience
        self.on_stop()
        self._send(signal.SIGTERM)

    def _kill(self) -> None:
        self._send(signal.SIGKILL)
        self._kill_at = time.monotonic() + self.patience

    def _send(self, signum: signal.Signals) -> None:
        for slot in self._alive:
            if slot.pid is not None:
                os.kill(slot.pid, signum)  # not reaped yet, so the pid is still its own

    def _reap(self) -> None:
        for slot in self._alive:
            if slot.pid is not None:
                pid, status = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._ended(slot, pid, status)

    def _ended(self, slot: _Slot, pid: int, status: int) -> None:
        slot.pid = None
        self.on_end(slot.number)
        if self._kill_at is not None:
            return
        if not self._serving:
            _log.error("worker %d (pid %d) %s before it was ready", slot.number, pid, _how(status))
            self._failed = True
            self._stop()
            return
        slot.deaths = slot.deaths + 1 if time.monotonic() - slot.started < STEADY_SECONDS else 1
        delay = delay_after(slot.deaths)
        slot.due = time.monotonic() + delay
        when = f"in {delay:.0f} s" if delay else "now"
        again = f" ({slot.deaths} times in a row)" if slot.deaths > 1 else ""
        _log.error("worker %d (pid %d) %s%s; restarting it %s", slot.number, pid, _how(status), again, when)


def _how(status: int) -> str:
    """Describe a status of ``waitpid`` in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _tell(fd: int, number: int) -> None:
    with suppress(BrokenPipeError):
        os.write(fd, bytes([number]))


def _end_with(parent: int, lifeline: int) -> None:
    """Make this process end with its parent, however the parent ends: by PR_SET_PDEATHSIG on Linux, and by the end of a
    pipe that only the parent can write to.
    """
    if sys.platform.startswith("linux"):
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)

    def wait() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


@contextmanager
def _signals_as_bytes() -> Iterator[int]:
    """Replace the effects of signals by a file descriptor that has one byte to read for each: its number."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    handlers = {signum: signal.signal(signum, lambda *_: None) for signum in _SIGNALS}
    try:
        yield read
    finally:
        signal.set_wakeup_fd(before)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        os.close(read)
        os.close(write)
