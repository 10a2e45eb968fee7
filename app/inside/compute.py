"""Statistics of one tensor, and the distance of two: computed in a child process, from elements that are streamed in.

Elements are taken in blocks that fit into a core's cache, and summed in float64. Blocks are merged by mean and squared
deviation (Chan, Golub and LeVeque, 1979), so that large sums lose no precision. Of elements of one or two bytes, it is
counted how often each pattern occurs: the rest then takes no time.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ..values.dtype import DType
from ..values.tensor_numbers import BINS, Distance, Histogram, TensorStats
from .elements import Floats, Numbers, complex_parts, is_complex, patterns, real
from .jobs import KEPT, HistogramJob, StatsJob, decode

BLOCK = 64 * 1024
"""Elements that are worked on at a time: half a MiB of float64."""

COUNTED = 256 * 1024
"""Elements whose patterns are counted at a time: longer than the table of two-byte patterns."""


def answer(head: bytes, messages: Iterator[memoryview]) -> bytes:
    """Do a job of ``jobs``, and return its answer."""
    job = decode(head)
    with np.errstate(all="ignore"):
        match job:
            case StatsJob():
                result = asdict(_stats(messages, job))
            case HistogramJob():
                result = asdict(_histogram(_blocks(messages, job.dtype), job.low, job.high))
            case _:
                result = asdict(_distance(messages, job.dtype, job.other))
    return json.dumps(result, allow_nan=False).encode()


class _Moments:
    """The counts, extremes and sums of the elements so far. ``mean`` and ``squares``, the sum of the squared deviations
    from it, are of the finite elements.
    """

    def __init__(self) -> None:
        self.count = self.finite = self.nan = self.inf = self.zeros = 0
        self.low, self.high = math.inf, -math.inf
        self.mean = self.squares = 0.0

    def add(self, numbers: Numbers) -> None:
        values = numbers.astype(np.float64)
        self.count += values.size
        total = float(values.sum())
        if not math.isfinite(total):
            fine = np.isfinite(values)
            nan = int(np.count_nonzero(np.isnan(values)))
            self.nan += nan
            self.inf += values.size - int(np.count_nonzero(fine)) - nan
            values = values[fine]
            total = float(values.sum())
        if not values.size:
            return
        self.zeros += int(np.count_nonzero(values == 0))
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        mean = total / values.size
        values -= mean
        self._merge(values.size, mean, float(np.dot(values, values)))

    def add_counted(self, values: Floats, counts: NDArray[np.int64]) -> None:
        """Add values, each so many times."""
        fine = np.isfinite(values)
        self.count += int(counts.sum())
        self.nan += int(counts[np.isnan(values)].sum())
        self.inf += int(counts[np.isinf(values)].sum())
        self.zeros += int(counts[values == 0].sum())
        values, counts = values[fine], counts[fine]
        if not values.size:
            return
        self.low, self.high = float(values.min()), float(values.max())
        mean = float(np.dot(values, counts)) / int(counts.sum())
        self._merge(int(counts.sum()), mean, float(np.dot((values - mean) ** 2, counts)))

    def _merge(self, count: int, mean: float, squares: float) -> None:
        both = self.finite + count
        apart = mean - self.mean
        self.mean += apart * count / both
        self.squares += squares + apart * apart * self.finite * count / both
        self.finite = both

    def stats(self, histogram: Histogram | None) -> TensorStats:
        some = self.finite > 0
        return TensorStats(
            count=self.count,
            min=self.low if some else None,
            max=self.high if some else None,
            mean=_finite(self.mean) if some else None,
            std=_finite(math.sqrt(self.squares / (self.finite - 1))) if self.finite > 1 else None,
            l2=_finite(math.sqrt(self.squares + self.finite * self.mean * self.mean)),
            zeros=self.zeros,
            nan=self.nan,
            inf=self.inf,
            histogram=histogram,
        )


def _stats(messages: Iterator[memoryview], job: StatsJob) -> TensorStats:
    dtype = job.dtype
    if is_complex(dtype):
        return _complex_stats(messages, dtype)
    if job.nbytes > BLOCK and dtype.itemsize <= 2:
        return _counted_stats(messages, dtype)
    moments, kept = _Moments(), []
    for message in messages:
        if job.nbytes <= KEPT:
            kept.append(memoryview(bytes(message)))
        for block in _blocks((message,), dtype):
            moments.add(block)
    if not (kept and moments.finite):
        return moments.stats(None)
    return moments.stats(_histogram(_blocks(kept, dtype), moments.low, moments.high))


def _counted_stats(messages: Iterator[memoryview], dtype: DType) -> TensorStats:
    counts = np.zeros(1 << 8 * dtype.itemsize, np.int64)
    size = COUNTED * dtype.itemsize
    for message in messages:
        for start in range(0, len(message), size):
            counts += np.bincount(patterns(message[start : start + size], dtype), minlength=counts.size)
    (there,) = counts.nonzero()
    counts = counts[there]
    values = real(memoryview(there.astype(f"<u{dtype.itemsize}").tobytes()), dtype).astype(np.float64)
    moments = _Moments()
    moments.add_counted(values, counts)
    if not moments.finite:
        return moments.stats(None)
    fine = np.isfinite(values)
    bins = _bins(values[fine], moments.low, moments.high)
    binned = np.zeros(BINS, np.int64)
    np.add.at(binned, bins, counts[fine])
    return moments.stats(Histogram(moments.low, moments.high, tuple(binned.tolist())))


def _complex_stats(messages: Iterator[memoryview], dtype: DType) -> TensorStats:
    count = nan = inf = zeros = 0
    squares = 0.0
    for message in messages:
        parts = complex_parts(message, dtype)
        is_nan = np.isnan(parts).any(axis=1)
        fine = np.isfinite(parts).all(axis=1)
        count += len(parts)
        nan += int(np.count_nonzero(is_nan))
        inf += int(np.count_nonzero(~fine & ~is_nan))
        zeros += int(np.count_nonzero((parts == 0).all(axis=1)))
        line = parts[fine].ravel()
        squares += float(np.dot(line, line))
    return TensorStats(count, None, None, None, None, _finite(math.sqrt(squares)), zeros, nan, inf, None)


def _histogram(blocks: Iterable[Numbers], low: float, high: float) -> Histogram:
    counts = np.zeros(BINS, np.int64)
    for block in blocks:
        values = block.astype(np.float64)
        if not math.isfinite(float(values.sum())):
            values = values[np.isfinite(values)]
        counts += np.bincount(_bins(values, low, high), minlength=BINS)
    return Histogram(low, high, tuple(counts.tolist()))


def _bins(values: Floats, low: float, high: float) -> NDArray[np.int64]:
    """Return the bins of finite values, by the formula of torch.histc. Changes ``values``."""
    if not math.isfinite(high - low):  # float64 cannot hold the widest differences
        values, low, high = values / 2, low / 2, high / 2
    values -= low
    if high > low:
        values /= high - low
        values *= BINS
    bins = values.astype(np.int64)
    return np.minimum(bins, BINS - 1, out=bins)


def _distance(messages: Iterator[memoryview], dtype: DType, other: DType) -> Distance:
    left_out = 0
    largest = squares = own = theirs = product = 0.0
    for message in messages:
        for one, two in zip(_blocks((message,), dtype), _blocks((next(messages),), other), strict=True):
            a, b = one.astype(np.float64), two.astype(np.float64)
            if not math.isfinite(float(a.sum()) + float(b.sum())):
                fine = np.isfinite(a) & np.isfinite(b)
                left_out += a.size - int(np.count_nonzero(fine))
                a, b = a[fine], b[fine]
            if not a.size:
                continue
            own += float(np.dot(a, a))
            theirs += float(np.dot(b, b))
            product += float(np.dot(a, b))
            b -= a
            largest = max(largest, float(b.max()), -float(b.min()))
            squares += float(np.dot(b, b))
    return Distance(
        max_abs=_finite(largest),
        l2=_finite(math.sqrt(squares)),
        relative_l2=_finite(math.sqrt(squares) / math.sqrt(own)) if own else None,
        cosine=_finite(product / math.sqrt(own) / math.sqrt(theirs)) if own and theirs else None,
        nonfinite=left_out,
    )


def _blocks(messages: Iterable[memoryview], dtype: DType) -> Iterator[Numbers]:
    size = BLOCK * dtype.itemsize
    for message in messages:
        for start in range(0, len(message), size):
            yield real(message[start : start + size], dtype)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
