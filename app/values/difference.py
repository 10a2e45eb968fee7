"""Differences between the tensors of two checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .manifest import Tensor

Status = Literal["same", "changed", "added", "removed", "moved"]
STATUSES: tuple[Status, ...] = ("same", "changed", "added", "removed", "moved")


@dataclass(frozen=True, slots=True)
class Difference:
    """How a key of the other checkpoint relates to the base. ``base`` and ``other`` are its tensors, None where there
    is none; of a moved one, ``base`` is the tensor under the old key. ``note`` says why bytes were not compared.
    """

    status: Status
    base: Tensor | None
    other: Tensor | None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Differences:
    """All differences, in the base's order; added and moved keys come last. ``counts`` are by status."""

    items: tuple[Difference, ...]
    counts: Mapping[Status, int]
