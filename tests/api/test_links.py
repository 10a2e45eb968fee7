"""The signatures of links, as values."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.signatures import Resource, Signature, parse_signature, sign

KEY, OTHER_KEY = b"k" * 32, b"l" * 32
HERE = Resource("/v1/models/a/b/checkpoints/1/file/b-v1.pt", (("device", "cpu"), ("weights_only", "false")))

text = st.text(max_size=10)
resources = st.builds(Resource, text, st.lists(st.tuples(text, text), max_size=4).map(tuple))


def signed() -> Signature:
    return sign(HERE, 1_800_000_000, 1, KEY, "abc", "seal")


def test_a_signature_is_of_what_it_was_made_for() -> None:
    assert signed().is_of(HERE, KEY, "seal")


def test_it_survives_a_url_as_it_is() -> None:
    assert parse_signature(str(signed())) == signed()
    assert not set(str(signed())) - set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.")


@pytest.mark.parametrize(
    "other",
    [
        replace(HERE, path=HERE.path.replace("/1/", "/2/")),
        replace(HERE, path=HERE.path.replace("a/b", "a/c")),
        replace(HERE, path=HERE.path + "x"),
        replace(HERE, query=()),
        replace(HERE, query=HERE.query[:1]),
        replace(HERE, query=HERE.query[::-1]),
        replace(HERE, query=(*HERE.query, ("device", "cpu"))),
        replace(HERE, query=(("device", "cuda"), HERE.query[1])),
    ],
)
def test_it_is_of_nothing_else(other: Resource) -> None:
    assert not signed().is_of(other, KEY, "seal")


def test_a_change_of_any_part_of_it_makes_it_worthless() -> None:
    for change in ({"expires": 1_800_000_001}, {"key": 2}, {"maker": "abd"}, {"mac": "A" * 43}):
        assert not replace(signed(), **change).is_of(HERE, KEY, "seal")
    assert not signed().is_of(HERE, OTHER_KEY, "seal")
    assert not signed().is_of(HERE, KEY, "another seal")


@given(resources, resources)
def test_two_resources_never_share_a_signature(one: Resource, other: Resource) -> None:
    assert sign(one, 1, 1, KEY, "m", "s").is_of(other, KEY, "s") is (one == other)


@pytest.mark.parametrize(
    "change", ["", "x", "1.2.3.4", "1.1.a." + "A" * 42, "-1.1.a." + "A" * 43, "1.1.A." + "A" * 43, "1.1.a." + "=" * 43]
)
def test_what_is_no_signature_is_none(change: str) -> None:
    assert parse_signature(change) is None


@given(st.text() | st.from_regex(r"[0-9.a-zA-Z_-]*", fullmatch=True))
def test_any_text_is_a_signature_or_none(given_text: str) -> None:
    found = parse_signature(given_text)
    assert found is None or str(found).split(".")[2:] == given_text.split(".")[2:]
