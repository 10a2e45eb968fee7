"""Claims on the rows of a manifest that was read: they are made when one is looked at."""

from app.values.lazy_rows import LazyRows


def test_rows_are_made_once_and_only_when_one_is_looked_at() -> None:
    made: list[int] = []

    def rows() -> tuple[str, ...]:
        made.append(1)
        return ("a", "b", "c")

    lazy = LazyRows(3, rows)
    assert len(lazy) == 3
    assert made == []
    assert list(lazy) == ["a", "b", "c"]
    assert (lazy[0], lazy[-1], lazy[1:]) == ("a", "c", ("b", "c"))
    assert made == [1]


def test_rows_equal_those_that_were_there_all_along() -> None:
    lazy = LazyRows(2, lambda: (1, 2))
    assert lazy == (1, 2)
    assert lazy == (1, 2)
    assert lazy == LazyRows(2, lambda: (1, 2))
    assert lazy != (2, 1)
    assert lazy != [1, 2]
