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
class Relative:
    """An ancestor or a descendant of a checkpoint, ``depth`` steps away. ``str()`` of it reads ``vision/resnet50@11``.

    ``state`` is ``live``, ``trashed``, ``purged``, or ``unknown`` if it never existed or the token may not see it.
    ``relation`` is the field that names it, or by which it names ``via``: ``parent`` or ``warm_started_from``. ``run``,
    ``epoch`` and ``created_at`` are None if they are not known any more.
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
        )

    return Lineage(
        checkpoint=f"{data['model']}@{data['version']}",
        ancestors=tuple(map(relative, data["ancestors"])),
        descendants=tuple(map(relative, data["descendants"])),
        more_ancestors=data["more_ancestors"],
        more_descendants=data["more_descendants"],
    )
