import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.values.json_text import BYTES, decode_text, encode_text, from_lines, joined, read_json, to_lines
from app.values.slices import ITEMS, slices

TEXT = st.text(st.characters(codec=None, exclude_categories=()))
"""Halves of surrogate pairs, and all line breaks that Python knows."""


@given(st.lists(TEXT))
def test_lines_give_back_the_list_that_was_written(items: list[str]) -> None:
    assert from_lines(decode_text(encode_text(to_lines(items)))) == items


def test_a_long_list_takes_several_lines() -> None:
    items = [f"k\n{number}" for number in range(2 * ITEMS + 1)]
    text = to_lines(items)
    assert text.count("\n") == 2
    assert from_lines(text) == items
    assert [len(some) for some in slices(items)] == [ITEMS, ITEMS, 1]


@pytest.mark.parametrize("count", [0, 1, ITEMS, 2 * ITEMS + 1])
def test_lists_are_joined_to_the_list_of_all_their_items(count: int) -> None:
    items = [{"k": [number, "]["]} for number in range(count)]
    assert json.loads(joined(map(json.dumps, slices(items)))) == items


def test_ascii_lines_can_be_kept_where_halves_of_characters_cannot() -> None:
    assert to_lines(["\udcff", "\u2028"], ascii_only=True).isascii()
    assert from_lines(to_lines(["\udcff", "\u2028"], ascii_only=True)) == ["\udcff", "\u2028"]


@pytest.mark.parametrize("character", ["\udcff", "é", "\U0001f600"])
@pytest.mark.parametrize("before", range(5))
def test_a_character_may_lie_across_two_slices(character: str, before: int) -> None:
    text = "a" * (BYTES - before) + character + "\ud83d\ude00" + "b"
    assert decode_text(encode_text(text)) == text
    assert encode_text(text) == text.encode("utf-8", "surrogatepass")
    assert read_json(encode_text(json.dumps([text], ensure_ascii=False))) == [text]


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    for data in (b"\xff", b"abc\xc3", b"\xed\xa0"):
        with pytest.raises(UnicodeDecodeError):
            decode_text(data)
