"""Sweeping from time to time, beside whatever else a server process does."""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

from ..catalog import Catalog, leases
from ..catalog.unused import Moment
from ..errors import StateroomError
from ..store import PackStore, Room
from ..store.keys import new_name
from .incoming import Incoming, find_orphans
from .sweep import Swept, sweep
from .sweep_lease import Stopped, SweepLease

_log = logging.getLogger("stateroom.sweep")

FIRST_AFTER = 60.0
"""Seconds after its start at which a server tries for the first time, if its interval is no shorter."""

PATIENCE = 10.0
"""Seconds to wait for a sweep that was told to stop: it does between two steps, each of some milliseconds."""

TURN = "periodic sweep"
"""The lease that lasts from one periodic sweep to the next, whoever does it."""


class PeriodicSweeps:
    """A thread that sweeps every ``interval`` seconds, unless another process that shares the catalog has. What uploads
    have left in this server's own data dir it removes either way: no other server can. Needs ``close``.

    ``on_swept`` is told, in that thread, what each sweep freed.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: PackStore,
        incoming: Incoming,
        room: Room,
        grace: float,
        interval: float,
        on_swept: Callable[[Swept], None],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._incoming = incoming
        self._room = room
        self._grace = grace
        self._interval = interval
        self._on_swept = on_swept
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        wait = min(self._interval, FIRST_AFTER)
        while not self._stopping.wait(wait):
            wait = self._interval
            try:
                if self._room.freeing(self._is_due):
                    self._sweep()
                else:
                    self._room.freeing(self._clear_own)
            except Stopped:
                continue
            except StateroomError as error:
                _log.warning("a sweep broke off, and is tried again later: %s", error)
            except Exception:  # noqa: BLE001 - the log is the only one to be told; the next sweep may do better
                _log.exception("a sweep failed")

    def _is_due(self) -> bool:
        with self._catalog.write() as w:
            # A little shorter than the interval, so that whoever did it last is not just too early for the next.
            return leases.take(w, TURN, new_name(), self._interval * 0.9)

    def _sweep(self) -> None:
        lease = SweepLease(self._catalog, self._stopping.is_set)

        def work() -> Swept | None:
            if not lease.begin():
                return None
            try:
                return sweep(self._catalog, self._store, self._incoming, self._grace, lease.go_on, self._room)
            finally:
                lease.end()

        if (swept := self._room.freeing(work)) is not None:
            self._on_swept(swept)
            self._room.make_reserve()

    def _clear_own(self) -> None:
        left = find_orphans(self._catalog, self._incoming, Moment.at(datetime.now(UTC), self._grace), remove=True)
        if left.spooled or left.partial:
            swept = Swept(left.nbytes, spooled_uploads=len(left.spooled), partial_uploads=len(left.partial))
            _log.info("uploads that were left have been removed", extra={"fields": asdict(swept)})
            self._on_swept(swept)
