"""Elements gathered from ranges of a storage, compared with torch's own ``as_strided``."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from app.deliver.gather import MAX_LINE, boxes, gather, touched
from app.values.conversion import merged

DTYPES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@st.composite
def views(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A view's shape and stride: permuted, sliced, expanded, overlapping."""
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=4)))
    return shape, tuple(draw(st.integers(0, 12)) for _ in shape)


@given(views(), st.sampled_from(sorted(DTYPES)), st.integers(1, 40), st.data())
def test_any_run_of_a_views_elements_is_found_wherever_its_storage_is_cut(view, itemsize, length, data):
    shape, stride = view
    reach = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    storage = torch.arange(reach, dtype=torch.int64).to(DTYPES[itemsize])
    expected = storage.as_strided(shape, stride).contiguous().view(-1)
    first = data.draw(st.integers(0, len(expected) - 1))
    last = data.draw(st.integers(first + 1, len(expected)))
    raw = memoryview(storage.numpy().tobytes())
    stretches = [(start, raw[start : start + length * itemsize]) for start in range(0, len(raw), length * itemsize)]
    made = gather(merged(shape, stride), itemsize, first, last, stretches)
    assert bytes(made) == expected[first:last].numpy().tobytes()


@given(views(), st.integers(1, 9), st.integers(0, 20), st.data())
def test_no_block_that_holds_an_element_is_overlooked(view, block, origin, data):
    shape, stride = view
    reach = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    order = torch.arange(reach).as_strided(shape, stride).contiguous().view(-1).tolist()
    first = data.draw(st.integers(0, len(order) - 1))
    last = data.draw(st.integers(first + 1, len(order)))
    found = set().union(*(touched(box, 1, block, origin) for box in boxes(merged(shape, stride), first, last)))
    assert found >= {(origin + position) // block for position in order[first:last]}


def test_blocks_between_rows_that_lie_far_apart_are_not_read():
    (box,) = boxes(merged((3, 10), (1_000_000, 1)), 0, 30)
    assert touched(box, 4, 1024, 0) == {0, 4_000_000 // 1024, 8_000_000 // 1024}


def test_a_view_of_the_same_few_blocks_over_and_over_is_looked_at_in_no_time():
    dims = merged((2,) * 30, tuple(2000 + i for i in range(30)))
    (box,) = boxes(dims, 0, 2**30)
    assert touched(box, 1, 1024, 0) == set(range(60_435 // 1024 + 1))


def test_a_long_line_is_copied_in_turns():
    storage = torch.arange(3 * MAX_LINE + 5, dtype=torch.int32)
    doubled = storage.repeat_interleave(2)
    made = gather(((len(storage), 2),), 4, 0, len(storage), [(0, memoryview(doubled.numpy().tobytes()))])
    assert bytes(made) == storage.numpy().tobytes()


def test_one_element_shown_many_times():
    made = gather(((2 * MAX_LINE + 1, 0),), 2, 0, 2 * MAX_LINE + 1, [(0, memoryview(b"\1\2"))])
    assert bytes(made) == b"\1\2" * (2 * MAX_LINE + 1)


def test_dimensions_that_are_one_stretch_are_one():
    assert merged((2, 3, 4), (12, 4, 1)) == ((24, 1),)
    assert merged((2, 1, 4), (8, 99, 1)) == ((2, 8), (4, 1))
    assert merged((1, 1), (7, 7)) == ((1, 1),)
    assert merged((), ()) == ((1, 1),)
    assert merged((3, 4), (0, 0)) == ((12, 0),)
