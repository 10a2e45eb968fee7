"""JSON bodies are read a value at a time, and end at the first mistake."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from app.api.requests.json_reader import MAX_VALUE, read_json


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = "x"
    numbers: dict[str, float | None] = {}
    pairs: list[tuple[int, str]] = Field(default=[], max_length=1000)


def read(data: bytes, step: int = 1 << 20) -> Body:
    return read_json((data[i : i + step] for i in range(0, len(data), step)), Body)


def mistake(data: bytes) -> dict[str, Any]:
    with pytest.raises(RequestValidationError) as raised:
        read(data)
    [only] = raised.value.errors()
    return only


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": TEXTS,
            "numbers": st.dictionaries(TEXTS, st.none() | st.floats(allow_nan=False) | st.integers(-(2**40), 2**40)),
            "pairs": st.lists(st.tuples(st.integers(-(2**70), 2**70), TEXTS)),
        },
    ),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([None, 1, "\t\r\n "]),
)
def test_any_body_reads_as_pydantic_reads_it_however_it_is_cut(
    body: dict[str, Any], step: int, ascii_only: bool, indent: int | str | None
) -> None:
    data = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode()
    assert read(data, step) == Body.model_validate_json(data)


NO_JSON = [
    *(
        b"",
        b" ",
        b"{",
        b"{]",
        b'{"name"',
        b'{"name":',
        b'{"name":"a"',
        b'{"name":"a",}',
        b'{"name":"a"}}',
        b"\xff",
        b"nul",
    ),
    *(
        b'{"pairs":[',
        b'{"pairs":[]',
        b'{"pairs":[[1,"a"],]}',
        b'{"pairs":[,]}',
        b'{"name":"\n"}',
        b'{"numbers":{"a":1,}}',
    ),
]


@pytest.mark.parametrize("data", NO_JSON)
def test_what_is_no_json_is_malformed(data: bytes) -> None:
    assert mistake(data)["type"] == "json_invalid"


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"[]", ()),
        (b"1", ()),
        (b'{"nam":1}', ("nam",)),
        (b'{"name":1}', ("name",)),
        (b'{"pairs":{}}', ("pairs",)),
        (b'{"pairs":1}', ("pairs",)),
        (b'{"numbers":[]}', ("numbers",)),
        (b'{"pairs":[[1,"a"],[1]]}', ("pairs", 1, 1)),
        (b'{"numbers":{"a":"x","b":"y"}}', ("numbers", "a")),
        (b'{"pairs":[' + b",".join([b'[1,"a"]'] * 1001) + b"]}", ("pairs",)),
        (b'{"name":"' + b"a" * MAX_VALUE + b'"}', ("name",)),
        (b'{"pairs":[[1,"' + b"a" * MAX_VALUE + b'"]]}', ("pairs", 0)),
        (b'{"pairs":' + b"[" * 60_000, ("pairs", 0)),
    ],
)
def test_the_first_mistake_is_the_only_one_and_says_where(data: bytes, place: tuple[Any, ...]) -> None:
    found = mistake(data)
    assert found["loc"] == place
    assert found["type"] != "json_invalid"


def test_a_field_that_is_needed_is_missed() -> None:
    class Needs(BaseModel):
        best: str

    with pytest.raises(RequestValidationError, match="required"):
        read_json(iter([b"{}"]), Needs)


def test_a_long_wrong_body_takes_no_memory_and_is_not_read_to_its_end() -> None:
    asked = 0

    def chunks() -> Iterator[bytes]:
        nonlocal asked
        yield b'{"pairs":[[1,"a"],'
        for _ in range(1000):
            asked += 1
            yield b"1," * 10_000

    tracemalloc.start()
    try:
        with pytest.raises(RequestValidationError):
            read_json(chunks(), Body)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert asked < 10
