import io
import re
from unittest.mock import patch

from stateroom._progress import Bar, progress_of


def shown(stream: io.StringIO) -> list[str]:
    """The states of the line, without what moves the cursor and colours it."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return [line.strip() for line in plain.replace("\n", "\r").split("\r") if line.strip()]


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
    states = shown(stream)
    assert [any(f"{done}/3 bytes" in state for state in states) for done in (1, 2, 3)] == [True, False, True]
    assert re.fullmatch(r"model\.pt \S+ 3/3 bytes .*", states[-1])
    assert stream.getvalue().removesuffix("\x1b[?25h").endswith("\n")


def test_a_transfer_that_fails_leaves_the_cursor() -> None:
    stream = io.StringIO()
    Bar(stream, iter([0.0, 1.0]).__next__)("model.pt", 1, 3)
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_a_transfer_of_unknown_size_is_counted_and_its_name_is_plain_text() -> None:
    stream = io.StringIO()
    bar = Bar(stream, iter([0.0, 1.0, 2.0]).__next__)
    bar("[red]model\x1b[2J.pt", 1500, None)
    bar("[red]model\x1b[2J.pt", 3000, None)
    assert "3.0/? kB" in shown(stream)[-1]
    assert shown(stream)[-1].startswith("[red]model")
    assert "\x1b[2J" not in stream.getvalue()


def test_whom_a_transfer_reports_to() -> None:
    def mine(label: str, done: int, total: int | None) -> None: ...

    assert progress_of(mine) is mine
    assert progress_of(False) is None
    assert isinstance(progress_of(True), Bar)
    with patch("sys.stderr", io.StringIO()):
        assert progress_of(None) is None
