"""Fetches parts of a file in parallel, straight to their destinations, and verifies them in the receiving threads."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO

from blake3 import blake3

from .._errors import DigestMismatch
from .._http.ranges import Connection, Range
from .._http.raw import BROKEN
from .._http.retry import RetryPolicy
from .._http.session import Http
from .._printable import printable
from .._progress import Progress
from .direct import Direct
from .fetch_plan import Memory, Piece, Place, pieces_of, runs_of
from .layout import Layout, Stored

SMALL = 1024 * 1024
"""Largest file, in bytes, that is fetched whole, whatever part of it is wanted."""

SLICE = 1024 * 1024
"""Bytes received, hashed and put away in one go: few enough to stay in the CPU cache meanwhile."""

TRIES = 3
"""Largest number of times that a damaged piece is fetched."""


@dataclass
class Tally:
    """Counts the bytes of one transfer, across all threads that receive them."""

    label: str
    total: int
    progress: Progress | None
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        with self.lock:
            self.done = min(self.done + count, self.total)
            if self.progress is not None:
                self.progress(self.label, self.done, self.total)


class _Ours(Exception):
    """An error of this machine, such as a full disk, rather than a broken connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Ours(error) from error


class Receiver:
    """Fetches parts of the file that ``layout`` describes, over up to ``connections`` connections."""

    def __init__(self, http: Http, layout: Layout, *, connections: int, verify: bool, tally: Tally) -> None:
        self._http = http
        self._layout = layout
        self._connections = connections
        self.verifies = verify
        self._tally = tally
        self._lock = threading.Lock()
        self._left = Counter[int]()
        self.direct = Direct()
        self._whole: bytes | None = None  # a small file, which is not worth two requests
        self.has_begun = False
        """True once the last ``fill`` is about to receive its first byte."""
        self.finished: set[int] = set()
        """Start offsets of the storages that are completely in their places."""

    def expects(self, total: int) -> None:
        """Set the number of bytes that will be wanted in all, if not the whole file."""
        self._tally.total = total

    def fill(self, wanted: Iterable[tuple[Stored, Place]]) -> None:
        """Receive all bytes of the wanted parts into their places. Raises DigestMismatch for a piece that is damaged
        each time, and ServerUnavailable. After an error nothing is written any more, and the places hold undefined
        bytes.
        """
        self._start()
        if self._layout.size <= SMALL and self._whole is None:
            whole = bytearray(self._layout.size)
            self._work([[Piece(0, len(whole), None, Memory(memoryview(whole)))]])
            self._whole = bytes(whole)
        self.has_begun = False
        self._work_on(pieces_of(wanted, verify=self.verifies))

    def _start(self) -> None:
        self.has_begun, self.finished = False, set()
        self._left = Counter[int]()

    def _work_on(self, pieces: Iterable[Piece]) -> None:
        self._work(runs_of(sorted(pieces, key=lambda piece: piece.start), self._connections))

    def _work(self, pieces: Iterable[list[Piece]]) -> None:
        runs = deque(pieces)
        self._left.update(piece.stored.start for run in runs for piece in run if piece.stored is not None)
        pool = _WorkerPool(self, runs, min(self._connections, len(runs)))
        try:
            pool.work()
        finally:
            self.direct.close()

    def receive(self, run: Sequence[Piece], connection: Connection, pool: _WorkerPool, spare: memoryview) -> None:
        """Receive one run of pieces over one connection, verify each, and fetch damaged ones again."""
        again: list[Piece] = []
        retry = self._http.retry_policy(pool.wait)
        reading = _Reading(run)
        while reading.position < run[-1].end and not pool.stopped:
            self._go_on(reading, run, connection, retry, pool, spare, again)
        for piece in again:
            if piece.damaged >= TRIES:
                label = printable(self._tally.label)
                raise DigestMismatch(
                    f"bytes {piece.start} to {piece.end} of {label} arrived damaged {piece.damaged} times"
                )
            self.receive([piece], connection, pool, spare)

    def _go_on(
        self,
        reading: _Reading,
        run: Sequence[Piece],
        connection: Connection,
        retry: RetryPolicy,
        pool: _WorkerPool,
        spare: memoryview,
        again: list[Piece],
    ) -> None:
        """Read as far as the connection lasts; damaged pieces are added to ``again``."""
        try:
            with self._body(run, reading.position, connection, retry) as body:
                if body is not None:
                    self._read(reading, body, retry, pool, spare, again)
        except BROKEN as failure:
            connection.close()
            if not pool.stopped:
                self._http.lost(failure, retry)

    @contextmanager
    def _body(
        self, run: Sequence[Piece], position: int, connection: Connection, retry: RetryPolicy
    ) -> Iterator[Range | None]:
        """Return a run's bytes from a position of the file on; None if the server will not send them now."""
        if self._whole is not None and not run[0].damaged:
            yield BytesIO(self._whole[position : run[-1].end])
            return
        with self.direct.opened(run[0], position, run[-1].end) as body:
            if body is not None:
                yield body
                return
        # A damaged piece may be damaged in the store: a server that verifies it sees that, and marks it.
        verifies = self.verifies and not run[0].damaged
        yield connection.open(self._layout.url, position, run[-1].end, self._layout.etag, verifies, retry)

    def _read(
        self,
        reading: _Reading,
        body: Range,
        retry: RetryPolicy,
        pool: _WorkerPool,
        spare: memoryview,
        damaged: list[Piece],
    ) -> None:
        """Read the rest of the run; damaged pieces are added to ``damaged``. Raises one of BROKEN."""
        while (piece := reading.piece) is not None:
            while (left := piece.end - reading.position) > 0:
                room = piece.place.room(piece.at(reading.position), spare[: min(left, SLICE)])
                self.has_begun = True
                count = body.readinto(room)
                if pool.stopped:
                    raise ConnectionAbortedError("another connection failed permanently")
                if not count:
                    raise ConnectionResetError(f"the body ended {left} bytes early")
                received = room[:count]
                with _ours():
                    piece.place.put(piece.at(reading.position), received)
                reading.took(received)
                retry.succeeded()
                if piece.stored is not None and not piece.damaged:
                    with _ours():
                        self._tally.add(count)
            if reading.is_good():
                self._finish(piece)
            else:
                damaged.append(replace(piece, damaged=piece.damaged + 1))
            reading.next()

    def _finish(self, piece: Piece) -> None:
        if piece.stored is None:
            return
        start = piece.stored.start
        with self._lock:
            self._left[start] -= 1
            if not self._left[start]:
                self.finished.add(start)


class _Reading:
    """The progress of reading a run."""

    def __init__(self, run: Sequence[Piece]) -> None:
        self._left = deque(run)
        self.position = run[0].start
        self._hasher = blake3()

    @property
    def piece(self) -> Piece | None:
        return self._left[0] if self._left else None

    def took(self, received: memoryview) -> None:
        self.position += len(received)
        if self._left[0].digest is not None:
            self._hasher.update(received)

    def is_good(self) -> bool:
        digest = self._left[0].digest
        return digest is None or self._hasher.digest() == digest

    def next(self) -> None:
        self._left.popleft()
        self._hasher = blake3()


class _WorkerPool:
    """Threads that take one run after another. No thread is left when ``work`` ends, even by an error."""

    def __init__(self, receiver: Receiver, runs: deque[list[Piece]], size: int) -> None:
        self._receiver = receiver
        self._runs = runs
        self._connections = [Connection(receiver._http) for _ in range(size)]  # noqa: SLF001  one class in two parts
        self._stop = threading.Event()
        self._errors: list[BaseException] = []

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def wait(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def work(self) -> None:
        threads = [threading.Thread(target=self._run, args=(each,), daemon=True) for each in self._connections[1:]]
        try:
            for thread in threads:
                thread.start()
            if self._connections:
                self._run(self._connections[0])
            for thread in threads:
                thread.join()
        finally:
            self._stop.set()  # after Ctrl+C nobody may write to the memory any more
            for connection in self._connections:
                connection.close()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._errors:
            error = self._errors[0]
            raise error.error if isinstance(error, _Ours) else error

    def _run(self, connection: Connection) -> None:
        spare = memoryview(bytearray(SLICE))
        try:
            while not self.stopped:
                try:
                    run = self._runs.popleft()
                except IndexError:
                    return
                self._receiver.receive(run, connection, self, spare)
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()
            for each in self._connections:
                each.close()
            self._receiver.direct.close()
            if not isinstance(error, Exception):
                raise
