"""Periodic sweeps in a background thread of a server process."""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

from ..catalog import leases
from ..catalog.unused import Moment
from ..errors import StateroomError
from ..store import Room
from ..store.keys import new_name
from .incoming import find_orphans
from .sweep import Sweeper, Swept
from .sweep_lease import Stopped, SweepLease

_log = logging.getLogger("stateroom.sweep")

FIRST_AFTER = 60.0
"""Delay of a server's first sweep after its start, in seconds, unless its interval is shorter."""

PATIENCE = 10.0
"""Longest wait, in seconds, for a sweep to stop. It stops between two steps of some milliseconds each."""

TURN = "periodic sweep"
"""Name of the lease that lasts from one periodic sweep to the next, in any process."""


class PeriodicSweeps:
    """A thread that sweeps every ``interval`` seconds, unless another process with the same catalog has swept. The
    thread always removes left uploads in this server's own data dir, because no other server can. Needs ``close``.

    The thread calls ``on_swept`` with the result of each sweep.
    """

    def __init__(self, sweeper: Sweeper, room: Room, interval: float, on_swept: Callable[[Swept], None]) -> None:
        self._sweeper = sweeper
        self._catalog = sweeper.catalog
        self._room = room
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
                _log.warning("a sweep was interrupted and will be retried later: %s", error)
            except Exception:  # noqa: BLE001 - nobody else can be told; the next sweep may succeed
                _log.exception("a sweep failed")

    def _is_due(self) -> bool:
        with self._catalog.write_own_rows() as w:
            # A little shorter than the interval, so that the last sweeper is not slightly too early for the next turn.
            return leases.take(w, TURN, new_name(), self._interval * 0.9)

    def _sweep(self) -> None:
        lease = SweepLease(self._catalog, self._stopping.is_set)

        def work() -> Swept | None:
            if not lease.begin():
                return None
            try:
                return self._sweeper.sweep(lease.go_on)
            finally:
                lease.end()

        if (swept := self._room.freeing(work)) is not None:
            self._on_swept(swept)
            self._room.make_reserve()

    def _clear_own(self) -> None:
        moment = Moment.at(datetime.now(UTC), self._sweeper.grace)
        left = find_orphans(self._catalog, self._sweeper.spool, moment, remove=True)
        if left.spooled or left.partial:
            swept = Swept(left.nbytes, spooled_uploads=len(left.spooled), partial_uploads=left.partial)
            _log.info("abandoned uploads were removed", extra={"fields": asdict(swept)})
            self._on_swept(swept)
