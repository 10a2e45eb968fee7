from hypothesis import given
from hypothesis import strategies as st

from app.values.frame import frame_spans
from app.values.manifest import MIN_BLOB_SIZE, Storage
from app.values.span import Span


def storage(start: int, end: int) -> Storage:
    return Storage("0", "cpu", None, Span(start, end))


def test_a_file_without_a_blob_is_all_frame():
    assert frame_spans(100, []) == (Span(0, 100),)
    assert frame_spans(MIN_BLOB_SIZE + 20, [storage(10, 10 + MIN_BLOB_SIZE)]) == (Span(0, MIN_BLOB_SIZE + 20),)


def test_a_storage_larger_than_the_smallest_blob_is_not_in_the_frame():
    end = 10 + MIN_BLOB_SIZE + 1
    assert frame_spans(end + 5, [storage(10, end)]) == (Span(0, 10), Span(end, end + 5))
    assert frame_spans(end, [storage(10, end)]) == (Span(0, 10),)


def test_a_file_that_is_one_blob_has_an_empty_frame():
    assert frame_spans(5000, [storage(0, 5000)]) == ()


def test_storages_that_share_bytes_are_left_out_once():
    assert frame_spans(30_000, [storage(9000, 20_000), storage(0, 10_000), storage(9000, 20_000)]) == (
        Span(20_000, 30_000),
    )


@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 20_000)), max_size=10))
def test_every_byte_is_in_the_frame_or_in_a_blob(places: list[tuple[int, int]]):
    size = 80_000
    storages = [storage(start, start + length) for start, length in places]
    covered = bytearray(size)
    for blob in storages:
        if blob.span.length > MIN_BLOB_SIZE:
            covered[blob.span.start : blob.span.end] = b"\1" * blob.span.length
    for span in frame_spans(size, storages):
        assert span.length > 0
        assert not any(covered[span.start : span.end])
        covered[span.start : span.end] = b"\1" * span.length
    assert all(covered)
