"""Lineage: the checkpoints that a checkpoint was trained from, and those that were trained from it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from .checkpoint import CheckpointName

Relation = Literal["parent", "warm_started_from", "merged_from"]
"""The field of the later checkpoint that names the earlier one; ``merged_from`` if it was computed from it."""

State = Literal["live", "trashed", "purged", "unknown"]


@dataclass(frozen=True, slots=True)
class Relative:
    """An ancestor or a descendant, ``depth`` steps away by the shortest way. ``relation`` is the last step of that way,
    from or to ``via``. ``state`` is unknown for a checkpoint that never existed or that the reader may not see.
    ``run``, ``epoch`` and ``created_at`` are None for such a one, and for one that an older version deleted. ``weight``
    is that of the earlier one in the later one, where that is a merge.
    """

    checkpoint: CheckpointName
    state: State
    relation: Relation
    depth: int
    via: CheckpointName
    run: str | None = None
    epoch: int | None = None
    created_at: datetime | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Relatives:
    """Ancestors or descendants, nearest first. ``more``: there are further ones."""

    items: tuple[Relative, ...]
    more: bool
