"""A line of numbers as a path of an SVG, small enough to stand in a row of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

POINTS = 48
"""Most points of a line: more than its pixels need."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A path in a box of ``width`` times ``height``, and its last point."""

    width: int
    height: int
    path: str
    end: tuple[float, float]


def sparkline(values: Sequence[float], width: int = 120, height: int = 28) -> Sparkline | None:
    """Draw finite ``values``, oldest first; None where there are fewer than two."""
    if len(values) < 2:
        return None
    step = max(1, len(values) // POINTS)
    kept = [*values[:-1:step], values[-1]]
    low, high = min(kept), max(kept)
    margin = 3
    scale = (height - 2 * margin) / (high - low) if high > low else 0.0
    points = [
        (
            round(margin + (width - 2 * margin) * at / (len(kept) - 1), 1),
            round(height - margin - (value - low) * scale, 1) if scale else height / 2,
        )
        for at, value in enumerate(kept)
    ]
    return Sparkline(width, height, "M" + "L".join(f"{x:g} {y:g}" for x, y in points), points[-1])
