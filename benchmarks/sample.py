"""Repeated measurements of one figure, and the bars that they have to meet."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal

Better = Literal["more", "less"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Measurements of one figure in ``unit`` (``""``: a ratio). The quartiles are its spread."""

    values: tuple[float, ...]
    better: Better = "more"
    unit: str = ""

    @property
    def quartiles(self) -> tuple[float, float, float]:
        if len(self.values) == 1:
            return self.values[0], self.values[0], self.values[0]
        low, middle, high = quantiles(self.values, n=4, method="inclusive")
        return low, middle, high

    @property
    def middle(self) -> float:
        """The median."""
        return self.quartiles[1]

    @property
    def worse(self) -> float:
        """The worse quartile: three in four measurements are as good as that."""
        return self.quartiles[0 if self.better == "more" else 2]

    @property
    def text(self) -> str:
        """The median, its unit, and the spread: ``1.02 (0.98 to 1.05)``."""
        low, middle, high = (_shown(value, self.unit) for value in self.quartiles)
        spread = "" if len(self.values) == 1 else f" ({low} to {high})"
        return f"{middle}{self.unit and ' ' + self.unit}{spread}"

    def meets(self, limit: float) -> bool:
        """Tell whether the worse half of the spread meets ``limit``, too."""
        return self.worse >= limit if self.better == "more" else self.worse <= limit


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit for a sample. ``text`` replaces the number where it stands for more than that."""

    limit: float
    text: str = ""

    def text_for(self, sample: Sample) -> str:
        sign = ">=" if sample.better == "more" else "<="
        return f"{sign} {self.text or f'{self.limit:g}{sample.unit and chr(32) + sample.unit}'}"


def paired(ours: Sequence[float], theirs: Sequence[float], better: Better = "more") -> Sample:
    """Return the ratios ``ours / theirs`` of each turn, because a slow phase of the machine affects both of a turn."""
    return Sample(tuple(a / b for a, b in zip(ours, theirs, strict=True)), better)


def times_as_fast(ours: Sequence[float], theirs: Sequence[float]) -> Sample:
    """Return how many times as fast ``ours`` is as ``theirs``, turn by turn, from the seconds of both."""
    return paired(theirs, ours)


def milliseconds(seconds: Sequence[float]) -> Sample:
    return Sample(tuple(1000 * each for each in seconds), "less", "ms")


def rate(nbytes: int, seconds: Sequence[float]) -> str:
    """The rate in GB/s for the median of ``seconds``."""
    return f"{nbytes / median(seconds) / 1e9:.2f} GB/s"


def _shown(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value:,.0f}"
    return f"{value:.3f}" if 0 < abs(value) < 0.1 else f"{value:.2f}" if abs(value) < 10 else f"{value:,.1f}"
