"""A receiver with a cache: it reads cached storages from this machine's disk, and caches the others as they arrive."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.filesize import decimal

from .._digest import digest_of_blocks
from .._errors import ServerUnavailable
from .._http.ranges import Connection, Range
from .._http.raw import BROKEN
from .._http.retry import RetryPolicy
from .._http.session import Http
from .._log import LOG
from .._printable import printable
from .disk_cache import Cache, Entry, Others
from .fetch_plan import Piece, Place, pieces_of
from .layout import Layout, Stored
from .receiver import SMALL, Receiver, Tally

WORTH_A_FILE = 64 * 1024
"""Size of the smallest storage that is cached, in bytes."""

SHOWN = 3

POLL = 0.05
"""Seconds between two checks whether other processes have fetched the storages that they claimed."""

if TYPE_CHECKING:
    Parts = list[tuple[Stored, Place]]


class CachedReceiver(Receiver):
    """A receiver that verifies, and caches large enough storages in ``cache``. A failing cache is no error.

    With ``keeps_all`` it caches everything; ``offline``, it takes everything from the cache.
    """

    def __init__(
        self,
        http: Http,
        layout: Layout,
        *,
        connections: int,
        tally: Tally,
        cache: Cache,
        keeps_all: bool,
        offline: bool,
    ) -> None:
        super().__init__(http, layout, connections=connections, verify=True, tally=tally)
        self._cache = cache
        self._keeps_all = keeps_all
        self._offline = offline
        self._entries: dict[int, Entry] = {}
        self._lost: set[Path] = set()

    def fill(self, wanted: Iterable[tuple[Stored, Place]]) -> None:
        self._start()
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
        if self._offline:
            self._check_held([stored for stored, _ in (*ready, *missing) if stored.size and stored.start not in held])
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
                    entry = fetch.claim(self._name(stored))
                    if path := self._find(stored):  # cached meanwhile
                        held[stored.start] = path
                        ready.append((stored, place))
                        if entry is not None:
                            entry.end()
                    elif entry is None:
                        others.free_if_abandoned(self._name(stored))
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

    def _check_held(self, lacking: Sequence[Stored]) -> None:
        """Raise ServerUnavailable, which names them, if the cache lacks parts."""
        if not lacking:
            return
        shown = ", ".join(str(each.digest or f"bytes {each.start} to {each.end}") for each in lacking[:SHOWN])
        more = f", and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        raise ServerUnavailable(
            f"no Stateroom server responds at {self._http.url}, and the cache {printable(self._cache.folder)} lacks "
            f"{decimal(sum(each.size for each in lacking))} of {printable(self._tally.label)}: {shown}{more}"
        )

    def _is_kept(self, stored: Stored) -> bool:
        """Return whether the storage is large enough, and named by the digests that its bytes will be compared with."""
        if self._keeps_all:
            return stored.size > 0
        return self._layout.size > SMALL and stored.size >= WORTH_A_FILE and _is_named(stored)

    def _find(self, stored: Stored) -> Path | None:
        return self._cache.find(self._name(stored), stored.size)

    def _name(self, stored: Stored) -> str:
        """Return the digest; or a name of these bytes of this file, whose checksums the caller compares."""
        if _is_named(stored):
            return str(stored.digest)
        return f"part-{sha256(f'{self._layout.etag} {stored.start} {stored.end}'.encode()).hexdigest()}"

    @contextmanager
    def _body(
        self, run: Sequence[Piece], position: int, connection: Connection, retry: RetryPolicy
    ) -> Iterator[Range | None]:
        path = run[0].held
        if path is not None and run[0].damaged:
            self._lose(path)
        if path is None or path in self._lost:
            if self._offline:
                self._check_held([piece.stored for piece in run if piece.stored is not None])
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
    http: Http,
    layout: Layout,
    *,
    connections: int,
    verify: bool,
    tally: Tally,
    cache: Cache | None,
    keeps_all: bool = False,
    offline: bool = False,
) -> Receiver:
    """Return a receiver, with the cache if there is one: unverified bytes are not cached."""
    if cache is None or not verify:
        return Receiver(http, layout, connections=connections, verify=verify, tally=tally)
    return CachedReceiver(
        http, layout, connections=connections, tally=tally, cache=cache, keeps_all=keeps_all, offline=offline
    )


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


def _is_named(stored: Stored) -> bool:
    return bool(stored.blocks) and stored.digest == digest_of_blocks(stored.blocks)
