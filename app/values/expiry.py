"""Expiry times as people write them: how long from now, or when."""

from contextlib import suppress
from datetime import UTC, datetime

from .duration import LONGEST, parse_duration


def parse_expiry(text: str, now: datetime) -> datetime:
    """Parse ``90d``, ``12h``, ``30m``, ``2w`` from now, or a date or time (in UTC, unless it says otherwise).

    Raises ValueError, with a text for the user.
    """
    try:
        time = _time_of(text, now)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is not a time: use 90d, 12h, 2027-01-31 or 2027-01-31T18:00Z") from None
    if time <= now:
        raise ValueError(f"{text} is in the past: now is {now:%Y-%m-%d %H:%M} UTC")
    if time > now + LONGEST:
        raise ValueError(f"{text} is more than a hundred years away: leave it out for a token that never expires")
    return time


def _time_of(text: str, now: datetime) -> datetime:
    with suppress(ValueError):
        return now + parse_duration(text)
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
