"""Numbers computed from the elements of tensors."""

from dataclasses import dataclass

BINS = 32
"""Bins of a histogram."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of the finite elements in BINS intervals of equal width from ``low`` to ``high``. The last interval
    includes ``high``; if both are equal, all elements are in the first.
    """

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorStats:
    """Statistics of a tensor of ``count`` elements. ``nan`` and ``inf`` are counts; everything else is of the finite
    elements, None where there is no finite number. ``std`` is torch's: with n - 1.
    """

    count: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    l2: float | None
    zeros: int
    nan: int
    inf: int
    histogram: Histogram | None

    @property
    def is_finite(self) -> bool:
        return self.nan + self.inf == 0


@dataclass(frozen=True, slots=True)
class Distance:
    """The distance of a tensor from another of the same shape, over the places where both are finite; ``nonfinite``
    counts the others. ``relative_l2`` is ``l2`` over the norm of the first tensor, None if that is 0.
    """

    max_abs: float | None
    l2: float | None
    relative_l2: float | None
    cosine: float | None
    nonfinite: int
