"""A lineage as tables."""

from __future__ import annotations

from collections.abc import Sequence

from .._lineage import Lineage, Relative
from .._printable import printable
from .output import ABSENT, number_text, say, table, time_text


def lineage_tables(lineage: Lineage) -> None:
    """Print a table of the ancestors, and one of the descendants."""
    say(printable(lineage.checkpoint))
    _relatives("ancestors", lineage.ancestors, more=lineage.more_ancestors)
    _relatives("descendants", lineage.descendants, more=lineage.more_descendants)


def _relation(relative: Relative) -> str:
    weight = "" if relative.weight is None else f" * {relative.weight:.4g}"
    return relative.relation.replace("_", " ") + weight


def _relatives(title: str, relatives: Sequence[Relative], *, more: bool) -> None:
    say(f"\n{title}{'' if relatives else ': none'}")
    rows = [
        [
            str(each.depth),
            str(each),
            _relation(each),
            each.via,
            each.state,
            each.run or ABSENT,
            number_text(each.epoch),
            ABSENT if each.created_at is None else time_text(each.created_at),
        ]
        for each in relatives
    ]
    if rows:
        header = ["STEPS", "CHECKPOINT", "RELATION", "VIA", "STATE", "RUN", "EPOCH", "CREATED"]
        table(header, rows, right=["STEPS", "EPOCH"])
    if more:
        say("... and more")
