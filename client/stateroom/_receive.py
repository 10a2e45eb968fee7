"""Parts of a file, fetched in parallel straight to where they are wanted, and verified by who received them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from blake3 import blake3

from ._digest import BLOCK_SIZE
from ._errors import DigestMismatch, ServerUnavailable
from ._http import Http, Patience
from ._layout import Layout, Stored
from ._progress import Progress
from ._ranges import Connection, Range
from ._wire import BROKEN

RUN_SIZE = 2 * BLOCK_SIZE
"""Bytes of one request: more would leave connections idle at the end, less would cost more requests."""

MAX_GAP = 64 * 1024
"""Bytes between two pieces that are received and dropped rather than asked around."""

SLICE = 1024 * 1024
"""Bytes received, hashed and put away in one go: they are still in the cache then."""

TRIES = 3
"""How often a piece is fetched whose bytes are not those that its digest names."""


class Place(Protocol):
    """Where bytes go."""

    def room(self, at: int, spare: memoryview) -> memoryview:
        """Where to receive the bytes from ``at`` on: in place, or in ``spare``."""

    def put(self, at: int, received: memoryview) -> None:
        """These bytes have been received, into what ``room`` gave."""


class Memory:
    """Bytes go straight into memory, which somebody else keeps."""

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def room(self, at: int, spare: memoryview) -> memoryview:
        return self.view[at : at + len(spare)]

    def put(self, at: int, received: memoryview) -> None: ...


class _Nowhere:
    def room(self, at: int, spare: memoryview) -> memoryview:
        return spare

    def put(self, at: int, received: memoryview) -> None: ...


@dataclass(frozen=True)
class _Piece:
    """Bytes ``[start, end)`` of the file, which go to ``place`` from its byte ``at`` on; ``digest`` is their BLAKE3."""

    start: int
    end: int
    place: Place
    at: int
    digest: bytes | None
    damaged: int = 0


@dataclass
class Tally:
    """Counts the bytes of one transfer, whoever receives them."""

    label: str
    total: int
    progress: Progress | None
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        with self.lock:
            self.done += count
            if self.progress is not None:
                self.progress(self.label, self.done, self.total)


class Receiver:
    """Fetches parts of the file that ``layout`` describes, over up to ``connections``."""

    def __init__(self, http: Http, layout: Layout, *, connections: int, verify: bool, tally: Tally) -> None:
        self._http = http
        self._layout = layout
        self._connections = connections
        self.verifies = verify
        self._tally = tally
        self._headers = {"If-Range": f'"{layout.etag}"'}
        if verify:
            self._headers["Stateroom-Verifies"] = "client"
        self.touched = False
        """Whether a byte has been put anywhere."""

    def fill(self, wanted: Iterable[tuple[Stored, Place]]) -> None:
        """All bytes of these, to their places. Raises DigestMismatch for what comes damaged again and again, and
        ServerUnavailable; then nothing is written any more, and what has been is anything.
        """
        runs = deque(_runs(sorted(_pieces(wanted, verify=self.verifies), key=lambda piece: piece.start)))
        crew = _Crew(self, runs, min(self._connections, len(runs)))
        crew.work()

    def receive(self, run: Sequence[_Piece], connection: Connection, crew: _Crew, spare: memoryview) -> None:
        """One run of pieces over one connection, each of them verified, and fetched again if it came damaged."""
        again: list[_Piece] = []
        patience = self._http.patience(crew.wait)
        reading = _Reading(run)
        while reading.position < run[-1].end and not crew.stopped:
            body: Range | None = None
            try:
                body = connection.open(self._layout.url, reading.position, run[-1].end, self._headers, patience)
                if body is not None:
                    again += self._read(reading, body, patience, crew, spare)
            except BROKEN as failure:
                connection.close()
                if crew.stopped:
                    return
                patience.failed(ServerUnavailable(f"the connection to {self._http.url} failed: {failure!r}"))
        for piece in again:
            if piece.damaged >= TRIES:
                raise DigestMismatch(
                    f"bytes {piece.start} to {piece.end} of {self._tally.label} came damaged {piece.damaged} times"
                )
            self.receive([piece], connection, crew, spare)

    def _read(self, reading: _Reading, body: Range, patience: Patience, crew: _Crew, spare: memoryview) -> list[_Piece]:
        """What of the run came damaged. Raises one of BROKEN."""
        damaged = []
        while (piece := reading.piece) is not None:
            while (left := piece.end - reading.position) > 0:
                room = piece.place.room(piece.at + reading.position - piece.start, spare[: min(left, SLICE)])
                self.touched = True
                count = body.readinto(room)
                if crew.stopped:
                    raise ConnectionAbortedError("another connection failed for good")
                if not count:
                    raise ConnectionResetError(f"the body ended {left} bytes early")
                received = room[:count]
                piece.place.put(piece.at + reading.position - piece.start, received)
                reading.took(received)
                patience.succeeded()
                self._tally.add(count if not piece.damaged else 0)
            if not reading.is_good():
                damaged.append(_Piece(piece.start, piece.end, piece.place, piece.at, piece.digest, piece.damaged + 1))
            reading.next()
        return damaged


class _Reading:
    """How far a run has come."""

    def __init__(self, run: Sequence[_Piece]) -> None:
        self._left = deque(run)
        self.position = run[0].start
        self._hasher = blake3()

    @property
    def piece(self) -> _Piece | None:
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


class _Crew:
    """Threads that take one run after another. When ``work`` is over, however it ended, none of them is left."""

    def __init__(self, receiver: Receiver, runs: deque[list[_Piece]], size: int) -> None:
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
            self._stop.set()  # Ctrl+C leaves memory that nobody may write to any more
            for connection in self._connections:
                connection.close()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._errors:
            raise self._errors[0]

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
            if not isinstance(error, Exception):
                raise


def _pieces(wanted: Iterable[tuple[Stored, Place]], *, verify: bool) -> Iterable[_Piece]:
    for stored, place in wanted:
        if stored.size and not stored.blocks:  # in one piece, so that the server can sum it up while it makes it
            yield _Piece(stored.start, stored.end, place, 0, None)
            continue
        for number, start in enumerate(range(stored.start, stored.end, BLOCK_SIZE)):
            digest = stored.blocks[number] if verify and stored.blocks else None
            yield _Piece(start, min(start + BLOCK_SIZE, stored.end), place, start - stored.start, digest)


def _runs(pieces: Iterable[_Piece]) -> Iterable[list[_Piece]]:
    """Pieces that lie one after another, in runs of some size, and what little lies between them."""
    run: list[_Piece] = []
    for piece in pieces:
        gap = piece.start - run[-1].end if run else 0
        if run and (gap > MAX_GAP or piece.end - run[0].start > RUN_SIZE):
            yield run
            run, gap = [], 0
        if gap:
            run.append(_Piece(run[-1].end, piece.start, _Nowhere(), 0, None))
        run.append(piece)
    if run:
        yield run
