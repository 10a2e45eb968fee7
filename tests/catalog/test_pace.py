"""A long task's transactions are as large as their time allows."""

from app.catalog.pace import HELD, Pace


def sizes(pace: Pace, rows: int, seconds_each: float) -> list[int]:
    """The sizes of the transactions of a task whose rows take so long."""
    taken = []
    for batch in pace.slices(range(rows)):
        taken.append(len(batch))
        pace.took(len(batch) * seconds_each)
    return taken


def test_every_row_comes_once_and_in_order():
    pace, seen = Pace(2, 7), []
    for batch in pace.slices(iter(range(50))):
        seen += batch
        pace.took(0)
    assert seen == list(range(50))


def test_quick_rows_come_in_growing_numbers_up_to_the_most():
    assert sizes(Pace(10, 50), 250, 0) == [10, 20, 40, 50, 50, 50, 30]


def test_slow_rows_come_as_many_as_fit_and_the_least_in_any_case():
    assert sizes(Pace(2, 100), 34, HELD / 7.5) == [2, 4, 7, 7, 7, 7]
    assert sizes(Pace(3, 100), 9, 2 * HELD) == [3, 3, 3]


def test_a_slow_one_shrinks_the_next_and_no_more_than_that():
    pace, taken = Pace(10, 1000), []
    for number, batch in enumerate(pace.slices(range(330))):
        taken.append(len(batch))
        pace.took(HELD * (4 if number == 3 else 0.4))
    assert taken == [10, 20, 40, 80, 20, 40, 80, 40]
