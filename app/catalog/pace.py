"""The size of a long task's transactions: as many rows as keep others waiting for some milliseconds."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

HELD = 0.02
"""Seconds for which a transaction of a long task should hold its locks. Twice that is rare, and no harm."""


class Pace:
    """The number of rows in the next transaction: as many as took HELD before, at least ``least``, at most ``most``.

    ``least`` rows take much less than HELD on any usual disk. If they do not, because the database is far away or the
    machine is busy, fewer would take as long.

    ``for batch in pace.slices(rows)`` gives the rows of a transaction; ``Catalog.turn`` calls ``took`` after it.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most
        self._size = least
        self._given = 0

    def slices(self, rows: Iterable[T]) -> Iterator[list[T]]:
        """Cut ``rows``, which are read between two transactions."""
        source = iter(rows)
        while batch := list(islice(source, self._size)):
            self._given = len(batch)
            yield batch

    def took(self, seconds: float) -> None:
        """Note how long the transaction of the last slice held its locks."""
        fits = int(self._given * HELD / max(seconds, 1e-6))
        self._size = max(self._least, min(fits, 2 * self._size, self._most))
