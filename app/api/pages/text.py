"""Text of pages: numbers, sizes and times for people, and names from files made visible."""

import math
import re
from datetime import UTC, datetime

MAX_SHOWN = 200
"""Most characters of a name in a page."""

NONE = "\N{EN DASH}"
"""Stands where there is no number."""

_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_STEPS = ((60, "s"), (60, "min"), (24, "h"), (30, "d"), (12, "mo"))


def shown(text: str, length: int = MAX_SHOWN) -> str:
    """Return text that somebody else chose, cut, with its invisible characters escaped: a name can't reverse the line
    that it stands in, or look like another.
    """
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), cut)


def number(value: float | None) -> str:
    """Return a metric with five digits; a dash without one."""
    if value is None:
        return NONE
    if math.isfinite(value) and value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.5g}"


def count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def size(nbytes: int) -> str:
    """Return a size in decimal units: ``1.04 GB``."""
    value, unit = float(nbytes), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.95 else f"{value:.3g} {_UNITS[unit]}"


def exact(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(time: datetime, now: datetime | None = None) -> str:
    """Return how long ago a time was: ``3 h ago``."""
    passed = ((now or datetime.now(UTC)) - time).total_seconds()
    if passed < 5:
        return "just now"
    for step, unit in _STEPS:
        if passed < step:
            return f"{int(passed)} {unit} ago"
        passed /= step
    return f"{int(passed)} y ago"


def until(time: datetime, now: datetime | None = None) -> str:
    """Return how soon a time is: ``in 3 h``."""
    present = now or datetime.now(UTC)
    text = ago(present - (time - present), present)
    return "now" if text == "just now" else f"in {text.removesuffix(' ago')}"
