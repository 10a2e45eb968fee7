from datetime import timedelta

import pytest

from app.values.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("0", timedelta()),
        ("0d", timedelta()),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_a_duration_is_a_number_and_its_unit(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "d", "-1d", "1.5h", " 1d", "1D", "1y", "1d12h", "\u0661d", "x" * 1000])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: use a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "999999999w"])
def test_a_duration_ends_at_a_hundred_years(text: str) -> None:
    with pytest.raises(ValueError, match="longer than a hundred years"):
        parse_duration(text)
