"""Reading ahead: a download from a store that is far away asks for the next blocks while it sends the ones before.

One connection to a cloud store gives some 90 MB/s, after some 30 ms. All downloads of a process share threads and a
budget of bytes; where the budget is used up, a download reads when it needs the bytes.
"""

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from threading import Lock

from ..errors import StoreError
from ..store.pack_store import PackStore
from ..values.span import Span

BUDGET = 512 * 1024 * 1024
"""Bytes that all downloads of a process may have asked for and not yet taken."""

THREADS = 32
"""Spans that are read ahead at once."""


class ByteBudget:
    """A number of bytes that several threads share."""

    def __init__(self, nbytes: int) -> None:
        self._left = nbytes
        self._lock = Lock()

    def take(self, nbytes: int) -> bool:
        """Take ``nbytes``; False if not as many are left."""
        with self._lock:
            if self._left < nbytes:
                return False
            self._left -= nbytes
        return True

    def give(self, nbytes: int) -> None:
        with self._lock:
            self._left += nbytes


@dataclass(slots=True)
class _Read:
    """A span of a pack that is being read, and how many of its parts were not taken yet."""

    pack: str
    span: Span
    data: Future[memoryview]
    left: int


class ReadAhead:
    """The reads that one download has asked for. Not for use by two threads at once."""

    def __init__(self, store: PackStore, threads: Executor, budget: ByteBudget) -> None:
        self._store = store
        self._threads = threads
        self._budget = budget
        self._reads: dict[tuple[str, int], _Read] = {}

    @property
    def windows(self) -> int:
        """Number of windows that are worth reading ahead."""
        return self._store.windows_ahead

    def has(self, pack: str, span: Span) -> bool:
        """Tell whether ``span`` was asked for and not taken."""
        return (pack, span.start) in self._reads

    def ask(self, pack: str, parts: list[Span], *, ahead: bool) -> bool:
        """Begin to read neighbouring ``parts`` of a pack; False if the budget is used up. ``ahead``: they are not
        needed at once.
        """
        span = Span(parts[0].start, parts[-1].end)
        if not self._budget.take(span.length):
            return False
        data = self._threads.submit(copy_context().run, partial(self._store.read, pack, span, ahead=ahead))
        read = _Read(pack, span, data, len(parts))
        self._reads |= {(pack, part.start): read for part in parts}
        return True

    def take(self, pack: str, part: Span) -> memoryview | None:
        """Return a part that was asked for, as soon as it is there; None if it was not, or could not be read."""
        read = self._reads.pop((pack, part.start), None)
        if read is None:
            return None
        read.left -= 1
        if read.left == 0:
            self._budget.give(read.span.length)
        try:
            return read.data.result()[part.start - read.span.start : part.end - read.span.start]
        except StoreError:
            return None  # whoever reads it now gets the error, if it comes again

    def forget(self) -> None:
        """Drop what was asked for: nobody will take it."""
        for read in {id(read): read for read in self._reads.values()}.values():
            read.data.cancel()
            self._budget.give(read.span.length)
        self._reads.clear()


class ReadAheads:
    """The threads and the budget of a process. Needs ``close``."""

    def __init__(self, store: PackStore) -> None:
        self._store = store
        self._budget = ByteBudget(BUDGET)
        self._threads = ThreadPoolExecutor(THREADS, "read-ahead")

    def new(self) -> ReadAhead | None:
        """Return the read-ahead of a download; None for a store that is as near as the page cache."""
        return ReadAhead(self._store, self._threads, self._budget) if self._store.windows_ahead else None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
