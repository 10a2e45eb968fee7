import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.responses.ranges import UnsatisfiableRange, content_range, requested_span
from app.values.span import Span


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-", Span(0, 1000)),
        ("bytes=10-19", Span(10, 20)),
        ("bytes=999-", Span(999, 1000)),
        ("bytes=10-5000", Span(10, 1000)),
        ("bytes=-1", Span(999, 1000)),
        ("bytes=-5000", Span(0, 1000)),
        ("BYTES = 1-2", Span(1, 3)),
        ("bytes=, 1-2 ,", Span(1, 3)),
        ("bytes=0-" + "9" * 5000, Span(0, 1000)),
        ("bytes=-" + "9" * 5000, Span(0, 1000)),
    ],
)
def test_one_range_is_cut_to_the_file(header: str, span: Span) -> None:
    assert requested_span(header, 1000) == span


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=1-2,5-6", "items=0-1", "bytes=0x1-2",
     "bytes=--1", "bytes=1", "bytes=1-2-3", "bytes=\u0661-\u0662", "bytes=+1-2"],
)  # fmt: skip
def test_what_is_malformed_or_several_is_ignored(header: str | None) -> None:
    assert requested_span(header, 1000) is None


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=" + "9" * 5000 + "-"])
def test_what_lies_outside_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableRange):
        requested_span(header, 1000)


def test_an_empty_file_has_no_range_but_all_of_it() -> None:
    assert requested_span("bytes=-5", 0) is None
    with pytest.raises(UnsatisfiableRange):
        requested_span("bytes=0-", 0)


@given(size=st.integers(1, 10**12), first=st.integers(0, 10**13), length=st.integers(1, 10**13))
def test_any_range_is_what_python_slices(size: int, first: int, length: int) -> None:
    header = f"bytes={first}-{first + length - 1}"
    if first >= size:
        with pytest.raises(UnsatisfiableRange):
            requested_span(header, size)
    else:
        start, stop, _ = slice(first, first + length).indices(size)
        assert requested_span(header, size) == Span(start, stop)


@given(st.text(max_size=40), st.integers(0, 100))
def test_no_text_breaks_it(text: str, size: int) -> None:
    try:
        span = requested_span(f"bytes={text}", size)
    except UnsatisfiableRange:
        return
    assert span is None or 0 <= span.start < span.end <= size


def test_content_range_counts_inclusively() -> None:
    assert content_range(Span(10, 20), 1000) == "bytes 10-19/1000"
    assert content_range(None, 1000) == "bytes */1000"
