"""The tree of keys and the curves that the command line draws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateroom import TensorInfo
from stateroom._cli.curve import BLOCKS, WIDEST, sparkline
from stateroom._cli.tree import DEEPEST, tree_of
from tests.support.measure import examples


def tensor(key: str, nbytes: int = 4) -> TensorInfo:
    return TensorInfo("model", key, "float32", (1,), (1,), "cpu", nbytes, None)


def drawn(*keys: str) -> list[tuple[str, int, int]]:
    return [(line.label, line.count, line.bytes) for line in tree_of(map(tensor, keys))]


def test_names_are_below_each_other_with_what_is_in_them() -> None:
    assert drawn("conv1.weight", "layer.0.conv.weight", "layer.0.conv.bias", "layer.1.weight", "fc.bias") == [
        ("conv1.weight", 1, 4),
        ("layer", 3, 12),
        ("  0.conv", 2, 8),
        ("    weight", 1, 4),
        ("    bias", 1, 4),
        ("  1.weight", 1, 4),
        ("fc.bias", 1, 4),
    ]


def test_a_key_may_be_the_beginning_of_others_and_names_may_be_empty() -> None:
    assert drawn("a", "a.b", "", "..", "a.c.d") == [
        ("a", 3, 12),
        ("  b", 1, 4),
        ("  c.d", 1, 4),
        ('""', 2, 8),
        ("  .", 1, 4),
    ]


def test_a_key_of_very_many_dots_makes_a_tree_of_bounded_depth() -> None:
    long = "." * 50_000
    lines = list(tree_of([tensor(long), tensor("." * DEEPEST + "x")]))
    assert max(line.depth for line in lines) < DEEPEST
    assert sum(line.tensor is not None for line in lines) == 2


@given(st.lists(st.text(alphabet="ab.", max_size=8), unique=True, max_size=20))
@examples(100)
def test_every_key_has_its_line_and_the_whole_key_can_be_read_from_it(keys: list[str]) -> None:
    above: list[str] = []
    found = []
    for line in tree_of(map(tensor, keys)):
        above[line.depth :] = [line.name]
        if line.tensor is not None:
            found.append(".".join(above))
            assert found[-1] == line.tensor.key
    assert sorted(found) == sorted(keys)


@pytest.mark.parametrize(
    ("values", "curve"), [([3.0, 2.0, 1.0], "█▅▁"), ([1.0, 1.0], "▁▁"), ([-1e308, 1e308], "▁█"), ([5.0], "▁")]
)
def test_a_curve_has_a_block_for_each_number(values: list[float], curve: str) -> None:
    assert sparkline(values) == curve


def test_a_long_curve_is_no_wider_than_a_line() -> None:
    curve = sparkline([float(number) for number in range(10_000)])
    assert len(curve) == WIDEST
    assert (curve[0], curve[-1]) == (BLOCKS[0], BLOCKS[-1])
