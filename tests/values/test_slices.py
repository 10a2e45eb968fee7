"""Long lists, worked on a slice at a time."""

from random import Random

import pytest

from app.values.slices import SORTED, in_order, slices


@pytest.mark.parametrize("count", [0, 1, SORTED, SORTED + 1, 3 * SORTED + 7])
def test_a_long_list_is_sorted_as_any_other(count: int) -> None:
    random = Random(0)
    numbers = [random.randrange(count) for _ in range(count)]
    pairs = list(enumerate(numbers))
    assert in_order(numbers) == sorted(numbers)
    assert in_order(pairs, key=lambda pair: -pair[1]) == sorted(pairs, key=lambda pair: -pair[1])


def test_slices_are_all_of_it_in_order() -> None:
    assert list(slices(range(5), 2)) == [range(2), range(2, 4), range(4, 5)]
    assert list(slices([], 2)) == []
