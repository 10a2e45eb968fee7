"""Fewer points of a curve, and the line of filters. Pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.pages.filters import parse_filters
from app.api.pages.sparkline import sparkline
from app.api.pages.text import ago, number, shown, size
from app.api.pages.thinning import thinned
from app.catalog.curves import Point
from app.catalog.listing import Filter
from app.errors import InvalidRequest
from tests.support.measure import examples

numbers = st.lists(st.floats(-1e6, 1e6), max_size=300)


@examples(300)
@given(numbers, st.integers(2, 60))
def test_a_thinned_curve_keeps_its_ends_and_every_extreme(values: list[float], most: int) -> None:
    points = [Point(at, 2 * at, value, "live") for at, value in enumerate(values)]
    kept = thinned(points, most)
    assert len(kept) <= max(most, 4)
    assert list(kept) == sorted(kept, key=lambda point: point.x)
    assert set(kept) <= set(points)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert min(point.y for point in kept) == min(values)
        assert max(point.y for point in kept) == max(values)


def test_a_spike_between_a_million_points_stays() -> None:
    points = [Point(at, at, 9.0 if at == 123_456 else 0.1, "live") for at in range(1_000_000)]
    kept = thinned(points, 1_000)
    assert len(kept) <= 1_000
    assert points[123_456] in kept


@pytest.mark.parametrize(
    ("line", "filters"),
    [
        ("", ()),
        ("  loss<0.5  epoch >= 3", (Filter("loss", "lt", "0.5"), Filter("epoch", "ge", "3"))),
        ('run="my run" tag.author=mira', (Filter("run", "eq", "my run"), Filter("tag.author", "eq", "mira"))),
        ("val_acc>0.9 metric.lr<=1e-3", (Filter("metric.val_acc", "gt", "0.9"), Filter("metric.lr", "le", "1e-3"))),
        ('run=""', (Filter("run", "eq", ""),)),
    ],
)
def test_a_line_of_filters(line: str, filters: tuple[Filter, ...]) -> None:
    assert parse_filters(line) == filters


@pytest.mark.parametrize("line", ["loss", "loss<", "<0.5", 'run="open', "a b", "loss == 3"])
def test_a_line_that_is_no_filter_says_where_and_what_would_be(line: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not a filter: write a field, an operator and a value"):
        parse_filters(line)


def test_invisible_characters_are_shown() -> None:
    assert shown("a\u202eb\n\x00\ud800\u200b") == "a\\u202eb\\n\\x00\\ud800\\u200b"
    assert shown("x" * 65_536) == "x" * 199 + "…"
    assert shown("größer, 模型, 🚢") == "größer, 模型, 🚢"


def test_numbers_and_sizes_are_short() -> None:
    told = [number(value) for value in (None, 0.0, 3.0, 0.123456789, 1e-9, 12345678.0, float("nan"), float("-inf"))]
    assert told == ["–", "0", "3", "0.12346", "1e-09", "1.2346e+07", "nan", "-inf"]  # noqa: RUF001 - the dash that stands for no number
    assert [size(n) for n in (0, 999, 1000, 99_949, 1_040_000_000, 999_600)] == [
        "0 B", "999 B", "1 kB", "99.9 kB", "1.04 GB", "1 MB",
    ]  # fmt: skip


def test_times_are_told_in_their_largest_unit() -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime(2026, 11, 29, tzinfo=UTC)
    told = {hours: ago(now - timedelta(hours=hours), now) for hours in (0, 1, 25, 24 * 40, 24 * 800)}
    assert told == {0: "just now", 1: "1 h ago", 25: "1 d ago", 24 * 40: "1 mo ago", 24 * 800: "2 y ago"}


@given(numbers)
def test_a_line_stays_in_its_box(values: list[float]) -> None:
    drawn = sparkline(values)
    assert (drawn is None) == (len(values) < 2)
    if drawn is not None:
        places = [pair.split() for pair in drawn.path[1:].split("L")]
        assert all(0 <= float(x) <= drawn.width and 0 <= float(y) <= drawn.height for x, y in places)
