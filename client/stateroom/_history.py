"""The history of a model: the numbers of every checkpoint there ever was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._errors import understood
from ._parsing import kind_of, time_of


@dataclass(frozen=True)
class HistoryEntry:
    """The numbers of a checkpoint that is, or once was: ``state`` is ``live``, ``trashed`` or ``purged``. A loss or
    metric that is not a finite number is None and named in ``nonfinite``.
    """

    version: int
    run: str | None
    epoch: int | None
    step: int | None
    loss: float | None
    metrics: Mapping[str, float | None]
    nonfinite: tuple[str, ...]
    created_at: datetime
    state: str


@understood("an entry of the history")
def history_entry_of(data: Mapping[str, Any]) -> HistoryEntry:
    """Parse the server's JSON."""
    return HistoryEntry(
        version=kind_of(data["version"], int),
        run=data["run"],
        epoch=data["epoch"],
        step=data["step"],
        loss=data["loss"],
        metrics=kind_of(data["metrics"], dict),
        nonfinite=tuple(data["nonfinite"]),
        created_at=time_of(data["created_at"]),
        state=kind_of(data["state"], str),
    )
