import pytest

from app.api.responses.conditional import is_known, is_unchanged, range_applies


@pytest.mark.parametrize(
    "header", ['"abc"', 'W/"abc"', '"x", "abc"', '"x" ,W/"abc","y"', "*", ' "abc" ', '"a,b","abc"']
)
def test_a_list_that_names_it_knows_it(header: str) -> None:
    assert is_known(header, "abc")


@pytest.mark.parametrize("header", [None, "", '"ab"', "abc", '"x", "y"', '"x,abc"', '"abc', 'w/"abd"'])
def test_any_other_does_not(header: str | None) -> None:
    assert not is_known(header, "abc")


@pytest.mark.parametrize(
    ("header", "etag", "holds"),
    [
        (None, "abc", True),
        (None, None, True),
        ('"abc"', "abc", True),
        ('"x", "abc"', "abc", True),
        ("*", "abc", True),
        ("*", None, False),
        ('"abc"', None, False),
        ('W/"abc"', "abc", False),
        ('"abd"', "abc", False),
        ("abc", "abc", False),
        ('"x,abc"', "abc", False),
        ("", "abc", False),
        ('"*"', "abc", False),
    ],
)
def test_if_match_compares_strongly(header: str | None, etag: str | None, holds: bool) -> None:
    assert is_unchanged(header, etag) is holds


@pytest.mark.parametrize(
    ("header", "applies"),
    [
        (None, True),
        ('"abc"', True),
        ('W/"abc"', False),
        ('"abd"', False),
        ("Wed, 21 Oct 2015 07:28:00 GMT", False),
        ("*", False),
    ],
)
def test_if_range_compares_strongly(header: str | None, applies: bool) -> None:
    assert range_applies(header, "abc") is applies
