"""Rows that are made when one of them is first looked at."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class LazyRows(Sequence[T]):
    """A sequence of ``count`` rows, which ``make`` makes all at once. Thread-safe, if ``make`` is.

    Many plans look at no tensor of a manifest, and making 400,000 takes a second.
    """

    __slots__ = ("_count", "_make", "_rows")

    def __init__(self, count: int, make: Callable[[], tuple[T, ...]]) -> None:
        self._count = count
        self._make: Callable[[], tuple[T, ...]] | None = make
        self._rows: tuple[T, ...] = ()

    def _made(self) -> tuple[T, ...]:
        make = self._make
        if make is not None:
            self._rows = make()
            self._make = None
        return self._rows

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> T: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[T, ...]: ...

    def __getitem__(self, number: int | slice) -> T | tuple[T, ...]:
        return self._made()[number]

    def __iter__(self) -> Iterator[T]:
        return iter(self._made())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (tuple, LazyRows)) and self._made() == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # rows need not be hashable

    def __repr__(self) -> str:
        return repr(self._made())
