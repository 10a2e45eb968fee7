from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.values.digest import BLOCK_SIZE
from app.values.manifest import MIN_BLOB_SIZE
from app.values.span import Span
from app.values.split import Split


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, list[Span]]:
    position, spans = 0, []
    for _ in range(draw(st.integers(0, 5))):
        start = position + draw(st.sampled_from([0, 1, 63, BLOCK_SIZE - 3, BLOCK_SIZE]))
        length = draw(st.sampled_from([MIN_BLOB_SIZE + 1, BLOCK_SIZE - 1, BLOCK_SIZE, 3 * BLOCK_SIZE + 5]))
        spans.append(Span(start, start + length))
        position = start + length
    return position + draw(st.sampled_from([1, 0, 200, 2 * BLOCK_SIZE])) or 1, spans


def split_of(size: int, spans: list[Span]) -> Split:
    pieces = [size - sum(span.length for span in spans), *(span.length for span in spans)]
    count = sum(max(1, -(-length // BLOCK_SIZE)) for length in pieces)
    return Split(size, spans, b"".join(number.to_bytes(32) for number in range(count)))


@given(layouts())
def test_the_blocks_of_a_split_are_the_file_each_byte_once(layout: tuple[int, list[Span]]) -> None:
    size, spans = layout
    split = split_of(size, spans)
    found = sorted(span for number in range(split.count) for span in split.spans(number))
    assert sum(span.length for span in found) == size
    assert all(one.end <= next_.start for one, next_ in pairwise(found))
    assert all(split.length(range(number, number + 1)) <= BLOCK_SIZE for number in range(split.count))
    for piece, storage in enumerate(spans, start=1):
        blocks = [span for number in split.numbers(piece) for span in split.spans(number)]
        assert (blocks[0].start, blocks[-1].end) == (storage.start, storage.end)
        assert all(split.piece(number) == piece for number in split.numbers(piece))


@given(layouts())
def test_a_split_is_kept_as_bytes(layout: tuple[int, list[Span]]) -> None:
    split = split_of(*layout)
    assert list(split.storages) == layout[1]
    again = Split.from_bytes(split.to_bytes())
    assert (again.size, again.storages, again.blocks) == (split.size, split.storages, split.blocks)


def test_a_wrong_number_of_digests_names_the_right_one() -> None:
    with pytest.raises(InvalidRequest, match="has 3 blocks"):
        Split(BLOCK_SIZE + 5000, [Span(0, BLOCK_SIZE + 4999)], bytes(32 * 2))


@pytest.mark.parametrize(
    ("frame", "storages", "blocks"),
    [
        (100, [5000, 6000], b"fAA"),
        (5000, [6000], b"AA"),
        (100, [BLOCK_SIZE + 5000, 5000], b"fABA"),  # a storage's first block, and a whole storage
        (100, [BLOCK_SIZE + 5000, BLOCK_SIZE + 6000], b"fABAB"),
        (100, [2 * BLOCK_SIZE, BLOCK_SIZE + 6000], b"fABAB"),
        (0, [5000], b"AA"),
    ],
)
def test_one_digest_for_blocks_of_two_lengths_is_refused(frame: int, storages: list[int], blocks: bytes) -> None:
    starts = list(accumulate(storages, initial=0))
    spans = [Span(start, end) for start, end in pairwise(starts)]
    honest = b"".join(bytes([i] * 32) for i in range(len(blocks)))
    assert Split(starts[-1] + frame, spans, honest).count == len(blocks)
    with pytest.raises(InvalidRequest, match="different lengths have different digests") as refused:
        Split(starts[-1] + frame, spans, b"".join(bytes([digest] * 32) for digest in blocks))
    assert refused.value.code == "bad-split"


def test_equal_storages_may_have_equal_digests() -> None:
    assert Split(10_100, [Span(0, 5000), Span(5000, 10_000)], b"f" * 32 + b"A" * 64).count == 3
