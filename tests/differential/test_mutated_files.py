"""Damaged files: each is refused, or read as stock torch reads it; and torch loads every state_dict made of it."""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.differential.check import check
from tests.differential.judge import Judge
from tests.differential.mutations import mutated
from tests.differential.pickles import damaged_pickle
from tests.support.measure import long, measure

IN_A_TEST, TESTS = measure((150, 3), (500, 8))

Damage = Callable[[int], tuple[str, bytes]]


@long
@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("damage", [mutated, damaged_pickle])
@pytest.mark.parametrize("part", range(TESTS))
def test_a_damaged_file_is_refused_or_read_as_torch_reads_it(judge: Judge, part: int, damage: Damage) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(part * IN_A_TEST, (part + 1) * IN_A_TEST):
        name, data = damage(seed)
        try:
            outcomes[check(data, judge)] += 1
        except Exception as error:
            error.add_note(f"{damage.__name__}({seed}), made of {name!r}")
            raise
    assert len(outcomes) > 2, "the damage is too great, or too small, to tell anything"
