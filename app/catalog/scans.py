"""Scans: checkpoints whose tensors are to be looked through for numbers that are not finite."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update

from ..values.checkpoint import ModelName
from ..values.event import EventKind
from .events import record
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import checkpoints, models

LEASE = "scans"
"""The name of the lease of the process that scans."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan that is due, of a visible checkpoint."""

    id: int
    model: ModelName
    version: int


_c = checkpoints.c


def due(s: ReadSession, now: datetime, limit: int) -> Sequence[Scan]:
    """Return scans that are due, the longest waiting first."""
    wanted = (
        select(_c.id, models.c.namespace, models.c.name, _c.version)
        .join(models, models.c.id == _c.model_id)
        .where(_c.scan_at <= to_microseconds(now), _c.version.is_not(None))
        .order_by(_c.scan_at, _c.id)
        .limit(limit)
    )
    return [Scan(row.id, ModelName(row.namespace, row.name), row.version) for row in s.select(wanted)]


def finish(w: WriteSession, scan: Scan, nonfinite_tensors: int) -> None:
    """Note the number of tensors with NaN or an infinity, unless somebody else did, or the checkpoint has gone."""
    this = _c.id == scan.id, _c.version == scan.version, _c.scan_at.is_not(None)
    noted = update(checkpoints).where(*this).values(nonfinite_tensors=nonfinite_tensors, scan_at=None)
    if w.execute(noted).rowcount != 1:
        return
    if nonfinite_tensors:
        detail = {"nonfinite_tensors": nonfinite_tensors}
        record(w, EventKind.CHECKPOINT_NONFINITE, scan.model, scan.version, detail=detail)
    else:
        record(w, EventKind.CHECKPOINT_CHANGED, scan.model, scan.version)


def postpone(w: WriteSession, scan: Scan, until: datetime) -> None:
    """Let a scan that failed wait."""
    this = _c.id == scan.id, _c.scan_at.is_not(None)
    w.execute(update(checkpoints).where(*this).values(scan_at=to_microseconds(until)))
