"""Durations as text: ``90s``, ``30m``, ``12h``, ``30d``, ``2w``."""

import re
from datetime import timedelta

LONGEST = timedelta(days=36_500)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(rf"([0-9]{{1,9}})([{''.join(_UNITS)}])", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Parse a whole number and its unit; ``0`` needs none. Raises ValueError, with a text for the user."""
    if text == "0":
        return timedelta()
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a duration: use a number and a unit, such as 30d, 12h or 90s")
    try:
        duration = timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        duration = timedelta.max
    if duration > LONGEST:
        raise ValueError(f"{text} is longer than a hundred years")
    return duration


def format_duration(duration: timedelta) -> str:
    """Write whole seconds as ``parse_duration`` reads them, in the largest unit that divides them."""
    seconds = duration // timedelta(seconds=1)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
