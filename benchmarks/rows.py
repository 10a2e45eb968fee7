"""Rows of the table that ``make bench`` prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Verdict = Literal["ok", "short", "info", "skipped", "not yet built"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row. ``question`` is the bar's number; ``ours`` and ``peer`` are figures with units, ``peer`` with its name.

    ``bar`` is the required ``ratio`` (``ours`` to ``peer``, unless ``what`` says otherwise). A row without a bar is
    only for information.
    """

    question: str
    what: str
    ours: str = ""
    peer: str = ""
    ratio: str = ""
    bar: str = ""
    verdict: Verdict = "info"


def at_least(bar: float, ratio: float) -> Verdict:
    return "ok" if ratio >= bar else "short"


def at_most(bar: float, ratio: float) -> Verdict:
    return "ok" if ratio <= bar else "short"


def rate(nbytes: int, seconds: Sequence[float]) -> float:
    """The rate in GB/s for the median of ``seconds``."""
    return nbytes / median(seconds) / 1e9


def median_ratio(ours: Sequence[float], peers: Sequence[float]) -> float:
    """The median of the ratios of pairs, because a slow phase of the machine affects both times of a pair."""
    return median(a / b for a, b in zip(ours, peers, strict=True))


def table(rows: Sequence[Row]) -> str:
    """The rows as text under a heading, in aligned columns."""
    cells = [
        ("#", "what", "ours", "peer or limit", "ratio", "bar", ""),
        *((r.question, r.what, r.ours, r.peer, r.ratio, r.bar, r.verdict) for r in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
