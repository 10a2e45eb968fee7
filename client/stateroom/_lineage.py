"""The lineage of a checkpoint, as the server describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._errors import understood
from ._parsing import kind_of, time_of
from ._printable import printable


@dataclass(frozen=True)
class MergeSource:
    """A checkpoint that a merge was made of, by name, and the ``weight`` of its tensors in the result."""

    checkpoint: str
    weight: float

    def __str__(self) -> str:
        return printable(f"{self.checkpoint} * {self.weight:.4g}")


@dataclass(frozen=True)
class Merge:
    """How the server computed a checkpoint ``of`` others: ``method`` is ``average``, ``linear``, ``slerp`` or ``ema``,
    which has a ``decay``; ``component`` is the name of the state_dict.
    """

    method: str
    component: str | None
    decay: float | None
    of: tuple[MergeSource, ...]

    def __str__(self) -> str:
        decay = "" if self.decay is None else f" {self.decay:g}"
        return printable(f"{self.method}{decay} of {', '.join(map(str, self.of))}")


@dataclass(frozen=True)
class Relative:
    """An ancestor or a descendant of a checkpoint, ``depth`` steps away. ``str()`` of it reads ``vision/resnet50@11``.

    ``state`` is ``live``, ``trashed``, ``purged``, or ``unknown`` if it never existed or the token may not see it.
    ``relation`` is the field that names it, or by which it names ``via``: ``parent``, ``warm_started_from``, or
    ``merged_from`` for a merge, in which the earlier one has a ``weight``. ``run``, ``epoch`` and ``created_at`` are
    None if they are not known any more.
    """

    model: str
    version: int
    state: str
    relation: str
    depth: int
    via: str
    run: str | None
    epoch: int | None
    created_at: datetime | None
    weight: float | None = None

    def __str__(self) -> str:
        return printable(f"{self.model}@{self.version}")


@dataclass(frozen=True)
class Lineage:
    """The checkpoints that ``checkpoint`` was trained from, and those trained from it: each once, nearest first.

    ``more_ancestors``, ``more_descendants``: there are further ones, which the server left out.
    """

    checkpoint: str
    ancestors: tuple[Relative, ...]
    descendants: tuple[Relative, ...]
    more_ancestors: bool
    more_descendants: bool


@understood("a lineage")
def lineage_of(data: Mapping[str, Any]) -> Lineage:
    """Parse the server's JSON."""

    def relative(item: Mapping[str, Any]) -> Relative:
        return Relative(
            model=kind_of(item["model"], str),
            version=kind_of(item["version"], int),
            state=item["state"],
            relation=item["relation"],
            depth=kind_of(item["depth"], int),
            via=item["via"],
            run=item["run"],
            epoch=item["epoch"],
            created_at=None if item["created_at"] is None else time_of(item["created_at"]),
            weight=item.get("weight"),
        )

    return Lineage(
        checkpoint=f"{data['model']}@{data['version']}",
        ancestors=tuple(map(relative, data["ancestors"])),
        descendants=tuple(map(relative, data["descendants"])),
        more_ancestors=data["more_ancestors"],
        more_descendants=data["more_descendants"],
    )


def merge_of(data: Mapping[str, Any] | None) -> Merge | None:
    """Parse the server's JSON."""
    if data is None:
        return None
    of = tuple(MergeSource(kind_of(each["checkpoint"], str), each["weight"]) for each in data["of"])
    return Merge(data["method"], data["component"], data["decay"], of)
