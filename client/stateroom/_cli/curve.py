"""Numbers as a small curve of blocks, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

BLOCKS = "▁▂▃▄▅▆▇█"
WIDEST = 40
"""Most characters of a curve. More numbers share one by their mean."""


def sparkline(values: Sequence[float]) -> str:
    """Return a block for each finite value, the lowest for the least."""
    shown = [value / 2 for value in _fewer(values)]  # halves, because the span of the largest floats is infinite
    least, span = min(shown), max(shown) - min(shown)
    if not span:
        return BLOCKS[0] * len(shown)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round(top * ((value - least) / span))] for value in shown)


def _fewer(values: Sequence[float]) -> Sequence[float]:
    if len(values) <= WIDEST:
        return values
    cuts = [len(values) * number // WIDEST for number in range(WIDEST + 1)]
    return [fmean(values[start:end]) for start, end in zip(cuts, cuts[1:])]
