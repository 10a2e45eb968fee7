"""The form parser, on bodies that arrive in any pieces."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.requests.multipart import MAX_FIELD_BYTES, Multipart, boundary_of
from app.errors import IncompleteUpload, InvalidRequest

BOUNDARY = b"xyz"
Parts = Sequence[tuple[str, bytes]]


def form(parts: Parts, end: bytes = b"--xyz--\r\n") -> bytes:
    def head(name: str) -> bytes:
        filename = b'; filename="model.pt"\r\nContent-Type: application/octet-stream' if name == "file" else b""
        return b'--xyz\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + filename + b"\r\n\r\n"

    return b"".join(head(name) + value + b"\r\n" for name, value in parts) + end


def parse(body: bytes, cuts: Sequence[int] = ()) -> tuple[bytes, list[tuple[str, str]]]:
    async def chunks() -> AsyncIterator[bytes]:
        edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
        for start, end in pairwise(edges):
            yield body[start:end]

    async def run() -> tuple[bytes, list[tuple[str, str]]]:
        multipart = Multipart(BOUNDARY)
        parts = [part async for part in multipart.files(chunks())]
        return b"".join(part for part in parts if isinstance(part, bytes)), multipart.fields

    return asyncio.run(run())


@given(
    file=st.one_of(
        st.binary(max_size=200), st.lists(st.sampled_from([b"\r\n", b"--xyz", b"\r", b"--", b"a"])).map(b"".join)
    ),
    cuts=st.lists(st.integers(0, 1000), max_size=12),
    before=st.booleans(),
)
def test_the_file_and_the_fields_come_out_as_they_went_in(file: bytes, cuts: list[int], before: bool) -> None:
    if b"\r\n--xyz" in b"\r\n" + file:
        return  # no client may send its own boundary in a part
    parts = [("epoch", b"3"), ("tag.who", "zoë".encode())]
    parts.insert(0 if before else 2, ("file", file))
    assert parse(form(parts), cuts) == (file, [("epoch", "3"), ("tag.who", "zoë")])


def test_a_form_that_stops_before_its_end_is_incomplete() -> None:
    whole = form([("file", b"abc" * 100)])
    for end in (len(whole) - 4, len(whole) // 2, 10):
        with pytest.raises(IncompleteUpload):
            parse(whole[:end])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (form([("epoch", b"3")]), "no part named 'file'"),
        (form([("epoch", b"\xff"), ("file", b"a")]), "UTF-8"),
        (form([("note", b"x" * (MAX_FIELD_BYTES + 1)), ("file", b"a")]), "longer"),
        (form([(f"f{i}", b"") for i in range(1001)]), "more than 1000 fields"),
        (b"--xyz\r\nContent-Type: text/plain\r\n\r\na\r\n--xyz--\r\n", "no name"),
        (b"no form at all", "not valid multipart"),
    ],
)
def test_what_is_no_form_with_one_file_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        parse(body)


def test_only_form_data_with_a_boundary_is_a_form() -> None:
    assert boundary_of("multipart/form-data; boundary=xyz") == b"xyz"
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b"') == b"a b"
    for other in (None, "", "application/octet-stream", "multipart/mixed; boundary=xyz", "multipart/form-data"):
        assert boundary_of(other) is None


def test_an_overlong_boundary_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        Multipart(b"x" * 1000)
