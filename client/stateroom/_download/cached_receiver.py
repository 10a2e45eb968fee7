"""A receiver with a cache: it reads cached storages from this machine's disk, and caches the others as they arrive."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.filesize import decimal

from .._digest import digest_of_blocks
from .._http.ranges import Connection, Range
from .._http.raw import BROKEN
from .._http.retry import RetryPolicy
from .._http.session import Http
from .._log import LOG
from .disk_cache import Cache, Entry, Others
from .fetch_plan import Piece, Place, pieces_of
from .layout import Layout, Stored
from .receiver import SMALL, Receiver, Tally

WORTH_A_FILE = 64 * 1024
"""Size of the smallest storage that is cached, in bytes."""

POLL = 0.05
"""Seconds between two checks whether other processes have fetched the storages that they claimed."""

if TYPE_CHECKING:
    Parts = list[tuple[Stored, Place]]


class CachedReceiver(Receiver):
    """A receiver that verifies, and caches large enough storages in ``cache``. A failing cache is no error."""

    def __init__(self, http: Http, layout: Layout, *, connections: int, tally: Tally, cache: Cache) -> None:
        super().__init__(http, layout, connections=connections, verify=True, tally=tally)
        self._cache = cache
        self._entries: dict[int, Entry] = {}
        self._lost: set[Path] = set()

    def fill(self, wanted: Iterable[tuple[Stored, Place]]) -> None:
        ready: Parts = []
        missing: Parts = []
        held: dict[int, Path] = {}
        room = self._cache.limit
        for stored, place in wanted:
            if not self._is_kept(stored):
                ready.append((stored, place))
            elif path := self._find(stored):
                held[stored.start] = path
                ready.append((stored, place))
            elif stored.size <= room:
                room -= stored.size
                missing.append((stored, place))
            else:
                ready.append((stored, place))
        if held or missing:
            found = sum(stored.size for stored, _ in ready if stored.start in held)
            lacking = sum(stored.size for stored, _ in missing)
            LOG.debug("%s are read from the cache, %s are downloaded.", decimal(found), decimal(lacking))
        if missing:
            self._fill_and_keep(ready, held, missing, self._cache.limit - room)
        else:
            self._receive(ready, held)

    def _fill_and_keep(self, ready: Parts, held: dict[int, Path], missing: Parts, size: int) -> None:
        """Fill also the ``missing`` parts: this process fetches and caches each, or waits until another one has."""
        others = Others(self._cache.folder)
        with self._cache.fetching(size) as fetch:
            while ready or missing:
                waiting: Parts = []
                for stored, place in missing:
                    entry = fetch.claim(_digest(stored))
                    if path := self._find(stored):  # cached meanwhile
                        held[stored.start] = path
                        ready.append((stored, place))
                        if entry is not None:
                            entry.end()
                    elif entry is None:
                        others.free_if_abandoned(_digest(stored))
                        waiting.append((stored, place))
                    else:
                        self._entries[stored.start] = entry
                        ready.append((stored, _Kept(place, entry)))
                if ready:
                    self._receive(ready, held)
                else:
                    time.sleep(POLL)
                ready, missing = [], waiting
        if fetch.error is not None:
            self._cache.warn_once(fetch.error)

    def _receive(self, parts: Parts, held: Mapping[int, Path]) -> None:
        self._start()
        self._work_on(pieces_of(parts, verify=True, held=held))

    def _is_kept(self, stored: Stored) -> bool:
        """Return whether the storage is large enough, and named by the digests that its bytes will be compared with."""
        return (
            self._layout.size > SMALL
            and stored.size >= WORTH_A_FILE
            and bool(stored.blocks)
            and stored.digest == digest_of_blocks(stored.blocks)
        )

    def _find(self, stored: Stored) -> Path | None:
        return self._cache.find(_digest(stored), stored.size)

    @contextmanager
    def _body(
        self, run: Sequence[Piece], position: int, connection: Connection, retry: RetryPolicy
    ) -> Iterator[Range | None]:
        path = run[0].held
        if path is not None and run[0].damaged:
            self._lose(path)
        if path is None or path in self._lost:
            with super()._body(run, position, connection, retry) as body:
                yield body
            return
        try:
            file = path.open("rb", buffering=0)
        except OSError:  # evicted meanwhile
            self._lose(path)
            yield None
            return
        with file:
            try:
                file.seek(run[0].at(position))
                yield cast("Range", file)
            except BROKEN:  # the disk is broken; the server has the bytes, too
                self._lose(path)

    def _lose(self, path: Path) -> None:
        self._lost.add(path)
        self._cache.forget(path)

    def _finish(self, piece: Piece) -> None:
        super()._finish(piece)
        if piece.stored is not None and piece.stored.start in self.finished:
            entry = self._entries.pop(piece.stored.start, None)
            if entry is not None:
                entry.publish()


def receiver_of(
    http: Http, layout: Layout, *, connections: int, verify: bool, tally: Tally, cache: Cache | None
) -> Receiver:
    """Return a receiver, with the cache if there is one: unverified bytes are not cached."""
    if cache is None or not verify:
        return Receiver(http, layout, connections=connections, verify=verify, tally=tally)
    return CachedReceiver(http, layout, connections=connections, tally=tally, cache=cache)


class _Kept:
    """A place whose bytes are also written to the cache."""

    def __init__(self, place: Place, entry: Entry) -> None:
        self._place = place
        self._entry = entry

    def room(self, at: int, spare: memoryview) -> memoryview:
        return self._place.room(at, spare)

    def put(self, at: int, received: memoryview) -> None:
        self._entry.write(at, received)
        self._place.put(at, received)


def _digest(stored: Stored) -> str:
    return str(stored.digest)
