import io
from unittest.mock import patch

import pytest

from stateroom._progress import Bar, line, progress_of, size_text


def test_a_line_tells_how_far_and_how_fast() -> None:
    assert line("model.pt", 500_000_000, 2_000_000_000, 2.0) == (
        "model.pt [=====               ] 500.0 MB of 2.0 GB, 250.0 MB/s"
    )
    assert line("model.pt", 1500, None, 1.0) == "model.pt 1.5 kB, 1.5 kB/s"
    assert line("model.pt", 0, 0, 0.0) == "model.pt 0 bytes, "


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (3e12, "3.0 TB")]
)
def test_sizes_read_well(size: float, text: str) -> None:
    assert size_text(size) == text


def test_a_quick_transfer_draws_nothing() -> None:
    stream = io.StringIO()
    bar = Bar(stream, iter([0.0, 0.1, 0.2]).__next__)
    bar("model.pt", 1, 2)
    bar("model.pt", 2, 2)
    assert stream.getvalue() == ""


def test_a_slow_transfer_is_drawn_now_and_then_and_ends_its_line() -> None:
    stream = io.StringIO()
    bar = Bar(stream, iter([0.0, 1.0, 1.01, 1.02]).__next__)
    bar("model.pt", 1, 3)
    bar("model.pt", 2, 3)
    bar("model.pt", 3, 3)
    assert stream.getvalue().count("\r") == 2
    assert stream.getvalue().endswith("\n")


def test_whom_a_transfer_reports_to() -> None:
    def mine(label: str, done: int, total: int | None) -> None: ...

    assert progress_of(mine) is mine
    assert progress_of(False) is None
    assert isinstance(progress_of(True), Bar)
    with patch("sys.stderr", io.StringIO()):
        assert progress_of(None) is None
