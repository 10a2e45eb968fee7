"""The lease that allows one sweep at a time, among all processes that share a catalog.

It only saves work: two sweeps at once would do everything twice, but nothing wrong.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..catalog import Catalog, leases
from ..errors import StateroomError
from ..store.keys import new_name

SWEEP = "sweep"
"""Name of the lease of the process that sweeps."""

LEASE_SECONDS = 30.0
RENEWED_AFTER = 10.0


class Stopped(StateroomError):
    """A sweep ended early, because its process ends or another process took its lease."""

    code = "sweep-stopped"


@dataclass(slots=True)
class SweepLease:
    """The right to sweep, for as long as ``go_on`` is called every few seconds."""

    catalog: Catalog
    stopped: Callable[[], bool]
    _holder: str = field(default_factory=new_name)
    _renewed: float = 0.0

    def begin(self) -> bool:
        """Take or renew the lease; False while another process sweeps."""
        self._renewed = time.monotonic()
        with self.catalog.write_own_rows() as w:
            return leases.take(w, SWEEP, self._holder, LEASE_SECONDS)

    def go_on(self) -> None:
        """Renew the lease if needed. Raises Stopped. Never call it inside a transaction."""
        if self.stopped() or (time.monotonic() - self._renewed > RENEWED_AFTER and not self.begin()):
            raise Stopped("the sweep was stopped early; the next sweep continues")

    def end(self) -> None:
        with self.catalog.write_own_rows() as w:
            leases.give_back(w, SWEEP, self._holder)
