"""Fewer points for a curve, so that it looks the same: of each stretch, the lowest and the highest stay."""

from collections.abc import Sequence

from ...catalog.curves import Point


def thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    """Return at most ``most`` points (2 or more), in their order, the first and the last among them.

    The points are cut into stretches of equal length, and each gives its lowest and its highest point: a spike stays,
    however narrow it is.
    """
    if len(points) <= most:
        return points
    stretches = max(1, most // 2 - 1)
    inner = points[1:-1]
    kept = [points[0]]
    for number in range(stretches):
        stretch = inner[len(inner) * number // stretches : len(inner) * (number + 1) // stretches]
        if not stretch:
            continue
        low = min(range(len(stretch)), key=lambda at: stretch[at].y)
        high = max(range(len(stretch)), key=lambda at: stretch[at].y)
        kept += [stretch[at] for at in sorted({low, high})]
    return [*kept, points[-1]]
