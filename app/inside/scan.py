"""The scanner: computes the statistics of checkpoints whose upload asked for it, by one process at a time.

Due scans are in the catalog, written with the commit: neither a crash nor a restart loses it. A lease says
which process scans. It only saves work: two at once find the same.
"""

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ..catalog import Catalog, leases, scans
from ..catalog.checkpoints import resolve
from ..catalog.scans import Scan
from ..concurrency.cancellation import Work, doing
from ..concurrency.scheduling import give_way
from ..errors import Cancelled, NotFound, StateroomError
from .service import Inside

INTERVAL = 2.0
"""Seconds between two looks for scans that are due."""

LEASE_SECONDS = 120.0
"""Longer than a page of statistics takes, but for huge tensors."""

AT_ONCE = 1_000
"""Tensors whose statistics are computed, or looked up, between two renewals of the lease."""

RETRY_AFTER = timedelta(minutes=10)
"""Pause after a scan that failed: of a damaged checkpoint, or on a machine without memory."""

PATIENCE = 20.0
"""Longest wait, in seconds, for a running scan to end."""

_log = logging.getLogger("stateroom.scans")


class Scanner:
    """A thread that scans what is due while this process has the lease. Needs ``close``."""

    def __init__(self, catalog: Catalog, inside: Inside, holder: str) -> None:
        self._catalog = catalog
        self._inside = inside
        self._holder = holder
        self._work = Work("the scanner")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scans", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._work.give_up()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        give_way()
        with doing(self._work):
            while not self._stopping.wait(INTERVAL):
                try:
                    self._scan_due()
                except Cancelled:
                    continue
                except StateroomError as error:
                    _log.warning("scans wait, because the catalog did not answer: %s", error)
                except Exception:  # noqa: BLE001 - nobody else can be told; the next look may succeed
                    _log.exception("a look for scans failed")

    def _scan_due(self) -> None:
        while due := self._due():
            for scan in due:
                if not self._has_lease():
                    return
                self._scan(scan)
            with self._catalog.write_own_rows() as w:
                leases.give_back(w, scans.LEASE, self._holder)

    def _due(self) -> Sequence[Scan]:
        with self._catalog.read() as session:
            return scans.due(session, datetime.now(UTC), 10)

    def _has_lease(self) -> bool:
        with self._catalog.write_own_rows() as w:
            return leases.take(w, scans.LEASE, self._holder, LEASE_SECONDS)

    def _scan(self, scan: Scan) -> None:
        try:
            found = self._count(scan)
        except Cancelled:
            raise
        except NotFound:  # deleted meanwhile, and no longer due
            return
        except StateroomError as error:
            _log.warning("the scan of %s@%s failed, and will be retried: %s", scan.model, scan.version, error)
            with self._catalog.write(scan.model.namespace) as w:
                scans.postpone(w, scan, datetime.now(UTC) + RETRY_AFTER)
            return
        with self._catalog.write(scan.model.namespace) as w:
            scans.finish(w, scan, found)

    def _count(self, scan: Scan) -> int:
        """Compute all statistics, and count the tensors with numbers that are not finite."""
        with self._catalog.read() as session:
            checkpoint = resolve(session, scan.model, str(scan.version), None)
        found, start = 0, 0
        while True:
            page = self._inside.stats(checkpoint, None, (), start, AT_ONCE)
            found += sum(1 for item in page.items if item.stats is not None and not item.stats.is_finite)
            if page.next is None:
                return found
            start = page.next
            self._has_lease()
