"""Looking inside checkpoints: statistics of tensors, and differences, as the server describes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ._errors import understood
from ._html import MOST_ROWS, bars, html_table
from ._parsing import kind_of
from ._printable import printable

STATUSES = ("changed", "moved", "added", "removed", "same")


@dataclass(frozen=True)
class Histogram:
    """Counts of the finite elements in 32 bins of equal width from ``low`` to ``high``, which is in the last bin."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TensorStats:
    """The numbers of a tensor of ``count`` elements. ``zeros``, ``nan`` and ``inf`` are counts; all others are of the
    finite elements, None where there is none. ``std`` is torch's. A tensor without numbers has a reason in ``skipped``.
    """

    component: str | None
    key: str
    dtype: str
    shape: tuple[int, ...] | None
    count: int | None
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    l2: float | None
    zeros: int | None
    nan: int | None
    inf: int | None
    histogram: Histogram | None
    skipped: str | None = None

    @property
    def is_finite(self) -> bool:
        return not (self.nan or self.inf)


@dataclass(frozen=True)
class Stats:
    """The statistics of a checkpoint's tensors, in the file's order."""

    checkpoint: str
    tensors: tuple[TensorStats, ...]

    def __iter__(self) -> Iterator[TensorStats]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __str__(self) -> str:
        bad = [printable(each.key) for each in self.tensors if not each.is_finite]
        what = f"not finite: {', '.join(bad[:5])}{', ...' if bad[5:] else ''}" if bad else "all finite"
        return f"{printable(self.checkpoint)}: {len(self.tensors)} tensors, {what}"

    def _repr_html_(self) -> str:
        header = ("key", "shape", "dtype", "min", "max", "mean", "std", "l2", "zeros", "nan", "inf", "histogram")
        rows = (
            (
                each.key,
                shape_text(each.shape),
                each.dtype,
                *(number_text(getattr(each, name)) for name in header[3:-1]),
                bars(each.histogram.counts) if each.histogram else each.skipped or "",
            )
            for each in self.tensors[:MOST_ROWS]
        )
        return html_table(str(self), header, rows, more=max(0, len(self.tensors) - MOST_ROWS))


@dataclass(frozen=True)
class TensorForm:
    """The dtype and shape of a tensor, and the bytes of its elements."""

    dtype: str
    shape: tuple[int, ...] | None
    bytes: int

    def __str__(self) -> str:
        return f"{self.dtype} {shape_text(self.shape)}"


@dataclass(frozen=True)
class Difference:
    """The fate of a key from the base to the other checkpoint.

    ``status`` is ``same``, ``changed``, ``added``, ``removed`` or ``moved`` (the base had these bytes under
    ``moved_from``). ``base`` and ``other`` are None where there is no tensor. With ``numeric``, a changed tensor has
    ``max_abs`` and ``l2``, of the difference, ``relative_l2``, by the norm of the base's tensor, and ``cosine``;
    ``nonfinite`` counts the places that were left out. ``note`` says why bytes were not compared.
    """

    component: str | None
    key: str
    status: str
    base: TensorForm | None
    other: TensorForm | None
    moved_from: str | None = None
    max_abs: float | None = None
    l2: float | None = None
    relative_l2: float | None = None
    cosine: float | None = None
    nonfinite: int | None = None
    note: str | None = None

    @property
    def form(self) -> str:
        """The form on both sides, as text for people."""
        forms = list(dict.fromkeys(str(each) for each in (self.base, self.other) if each is not None))
        return " -> ".join(forms)


@dataclass(frozen=True)
class Diff:
    """The differences of ``other`` from ``base`` (``vision/resnet50@12``), by key. ``str()`` of it is for people."""

    base: str
    other: str
    items: tuple[Difference, ...]

    @property
    def summary(self) -> Mapping[str, int]:
        """The number of keys by status."""
        counts = Counter(item.status for item in self.items)
        return {status: counts[status] for status in STATUSES}

    def of(self, *statuses: str) -> tuple[Difference, ...]:
        """Return the differences with one of these statuses, those that changed most first."""
        wanted = [item for item in self.items if item.status in statuses]
        return tuple(sorted(wanted, key=lambda item: (STATUSES.index(item.status), -_size(item))))

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {status}" for status, count in self.summary.items() if count)
        return f"{printable(self.base)} -> {printable(self.other)}: {counts or 'no tensors'}"

    def _repr_html_(self) -> str:
        header = ("status", "component", "key", "tensor", "max_abs", "l2", "relative_l2", "cosine")
        found = self.of("changed", "moved", "added", "removed")
        rows = (
            (
                item.status,
                item.component or "",
                item.key if item.moved_from is None else f"{item.moved_from} -> {item.key}",
                item.form,
                *(number_text(getattr(item, name)) for name in header[4:]),
            )
            for item in found[:MOST_ROWS]
        )
        return html_table(str(self), header, rows, more=max(0, len(found) - MOST_ROWS))


def _size(item: Difference) -> float:
    """How much a tensor changed, for sorting: numbers that are not known come first, for they may be anything."""
    if item.relative_l2 is not None:
        return item.relative_l2
    return 0.0 if item.l2 is None and item.status != "changed" else float("inf")


def shape_text(shape: tuple[int, ...] | None) -> str:
    return "none yet" if shape is None else " x ".join(map(str, shape)) or "scalar"


def number_text(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


@understood("statistics")
def stats_of(checkpoint: object, items: Iterable[Mapping[str, Any]]) -> Stats:
    """Parse the server's JSON."""
    return Stats(str(checkpoint), tuple(map(_tensor_stats, items)))


def _tensor_stats(item: Mapping[str, Any]) -> TensorStats:
    histogram = item["histogram"]
    numbers = ("count", "min", "max", "mean", "std", "l2", "zeros", "nan", "inf", "skipped")
    return TensorStats(
        component=item["component"],
        key=kind_of(item["key"], str),
        dtype=item["dtype"],
        shape=_shape(item["shape"]),
        histogram=None
        if histogram is None
        else Histogram(histogram["low"], histogram["high"], tuple(kind_of(histogram["counts"], list))),
        **{name: item[name] for name in numbers},
    )


@understood("a comparison")
def diff_of(base: str, other: str, items: Iterable[Mapping[str, Any]]) -> Diff:
    """Parse the server's JSON."""
    return Diff(base, other, tuple(map(_difference, items)))


def _difference(item: Mapping[str, Any]) -> Difference:
    numbers = ("max_abs", "l2", "relative_l2", "cosine", "nonfinite")
    return Difference(
        component=item["component"],
        key=kind_of(item["key"], str),
        status=kind_of(item["status"], str),
        base=_form(item["base"]),
        other=_form(item["other"]),
        moved_from=item["moved_from"],
        note=item["note"],
        **{name: item[name] for name in numbers},
    )


def _form(item: Mapping[str, Any] | None) -> TensorForm | None:
    return None if item is None else TensorForm(item["dtype"], _shape(item["shape"]), item["bytes"])


def _shape(sizes: list[int] | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(sizes)
