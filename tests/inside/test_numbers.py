"""The numbers of the child process are torch's own, of float64, for every dtype."""

import math
from collections.abc import Iterator

import pytest
import torch

from app.concurrency.cancellation import Work, doing
from app.errors import Cancelled
from app.inside.compute import BLOCK, answer
from app.inside.jobs import (
    CHILD,
    KEPT,
    DistanceJob,
    HistogramJob,
    StatsJob,
    compute_distance,
    compute_histogram,
    compute_stats,
    encode,
    stats_from_json,
)
from app.sandbox.streaming import MESSAGE, Child, streaming
from app.values.dtype import DTYPES
from app.values.tensor_numbers import TensorStats

INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")
FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
FLOATS = ("float64", "float32", "float16", "bfloat16", *FLOAT8)
COMPLEX = ("complex128", "complex64", "complex32")


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with streaming(CHILD, 1 << 30) as running:
        yield running


def elements(name: str, count: int) -> torch.Tensor:
    """Elements of any bits: NaN, infinities and numbers of all sizes among them."""
    dtype = getattr(torch, name)
    generator = torch.Generator().manual_seed(count)
    if name == "bool":
        return torch.randint(0, 2, (count,), generator=generator).to(torch.bool)
    data = torch.randint(0, 256, (count * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return data.view(dtype)


def raw(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(torch.uint8).numpy()).cast("B")


def messages(tensor: torch.Tensor) -> list[memoryview]:
    data, size = raw(tensor), 256 * 1024 * tensor.element_size()
    return [data[start : start + size] for start in range(0, len(data), size)]


def stats_of(child: Child, name: str, tensor: torch.Tensor) -> TensorStats:
    return compute_stats(child, StatsJob(DTYPES[name], len(raw(tensor))), messages(tensor))


def close(one: float | None, other: torch.Tensor | float) -> bool:
    expected = float(other)
    return one == pytest.approx(expected, rel=1e-9) if math.isfinite(expected) else one is None


@pytest.mark.parametrize("count", [1, 1000, 5 * BLOCK + 17])
@pytest.mark.parametrize("name", ["bool", *INTEGERS, *FLOATS])
def test_statistics_of_real_numbers_are_those_of_torch(child: Child, name: str, count: int) -> None:
    tensor = elements(name, count)
    if name == "float64":  # squares of its largest numbers have no place in float64
        tensor = tensor.clamp(-1e100, 1e100)
    found = stats_of(child, name, tensor)
    wide = tensor.to(torch.float32 if name in FLOAT8 else tensor.dtype).to(torch.float64)
    fine = wide[wide.isfinite()]
    assert (found.count, found.nan, found.inf) == (count, int(wide.isnan().sum()), int(wide.isinf().sum()))
    assert found.zeros == int((fine == 0).sum())
    assert close(found.l2, fine.norm())
    if not len(fine):
        assert (found.min, found.max, found.mean, found.std, found.histogram) == (None,) * 5
        return
    assert (found.min, found.max) == (float(fine.min()), float(fine.max()))
    assert close(found.mean, fine.mean()) or abs(found.mean - fine.mean()) < 1e-12 * fine.abs().max()
    assert found.std is None if len(fine) == 1 else close(found.std, fine.std())
    assert found.histogram is not None
    assert (found.histogram.low, found.histogram.high) == (found.min, found.max)
    if found.min < found.max:
        expected = torch.histc(fine, 32, found.min, found.max)
        assert list(found.histogram.counts) == expected.to(torch.int64).tolist()
    else:
        assert found.histogram.counts == (len(fine), *[0] * 31)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers_have_a_norm_and_counts_and_no_order(child: Child, name: str) -> None:
    tensor = elements(name, 1000)
    if name == "complex128":
        parts = torch.view_as_real(tensor)
        tensor = torch.view_as_complex(torch.where(parts.abs() > 1e100, torch.zeros_like(parts), parts))
    torch.view_as_real(tensor)[:3] = 0
    found = stats_of(child, name, tensor)
    wide = tensor.to(torch.complex128)
    fine = wide[wide.isfinite()]
    assert (found.min, found.max, found.mean, found.std, found.histogram) == (None,) * 5
    assert (found.count, found.nan) == (1000, int(wide.isnan().sum()))
    assert found.nan + found.inf == 1000 - len(fine)
    assert found.zeros == int((fine == 0).sum()) >= 3
    assert close(found.l2, fine.norm())


def test_a_large_mean_costs_the_deviation_no_precision(child: Child) -> None:
    tensor = 1e9 + torch.randn(3 * BLOCK, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert close(stats_of(child, "float64", tensor).std, tensor.std())


def test_the_histogram_of_the_widest_numbers_is_complete(child: Child) -> None:
    largest = torch.finfo(torch.float64).max
    found = stats_of(child, "float64", torch.tensor([-largest, 0.0, largest], dtype=torch.float64))
    assert found.histogram is not None
    assert found.histogram.counts == (1, *[0] * 15, 1, *[0] * 14, 1)
    assert (found.std, found.l2) == (None, None)


def test_a_large_tensor_is_sent_again_for_its_histogram_and_gets_the_same() -> None:
    """The announced length decides, so few bytes show it."""
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    tensor[5] = math.nan
    at_once = stats_from_json(answer(encode(StatsJob(DTYPES["float32"], 4000)), iter(messages(tensor))))
    first = stats_from_json(answer(encode(StatsJob(DTYPES["float32"], KEPT + 1)), iter(messages(tensor))))
    assert (first.histogram, first.min, first.max) == (None, at_once.min, at_once.max)
    with streaming(CHILD, 8000) as child:
        job = HistogramJob(DTYPES["float32"], first.min, first.max)
        assert compute_histogram(child, job, messages(tensor)) == at_once.histogram


@pytest.mark.parametrize(("name", "other"), [(name, name) for name in (*INTEGERS, *FLOATS)] + [("float32", "bfloat16")])
def test_distances_are_those_of_torch(child: Child, name: str, other: str) -> None:
    count = 300_000
    a, b = elements(name, count), elements(other, count + 1)[:count]
    if name == "float64":
        a, b = a.clamp(-1e100, 1e100), b.clamp(-1e100, 1e100)
    pairs = [part for both in zip(messages(a), messages(b), strict=True) for part in both]
    found = compute_distance(child, DistanceJob(DTYPES[name], DTYPES[other]), pairs)
    wide = [
        each.to(torch.float32 if kind in FLOAT8 else each.dtype).to(torch.float64)
        for each, kind in ((a, name), (b, other))
    ]
    fine = wide[0].isfinite() & wide[1].isfinite()
    one, two = wide[0][fine], wide[1][fine]
    assert found.nonfinite == int((~fine).sum())
    assert close(found.max_abs, (two - one).abs().max())
    assert close(found.l2, (two - one).norm())
    assert close(found.relative_l2, (two - one).norm() / one.norm())
    cosine = one.dot(two) / one.norm() / two.norm()
    assert found.cosine == pytest.approx(float(cosine), rel=1e-6, abs=1e-9)


def test_a_tensor_of_zeros_has_no_relative_distance_and_no_angle(child: Child) -> None:
    zeros, ones = torch.zeros(10), torch.ones(10)
    found = compute_distance(child, DistanceJob(DTYPES["float32"], DTYPES["float32"]), [raw(zeros), raw(ones)])
    assert (found.max_abs, found.l2) == (1.0, pytest.approx(math.sqrt(10)))
    assert (found.relative_l2, found.cosine) == (None, None)


def test_a_child_ends_when_nobody_waits_for_it_any_more() -> None:
    work = Work("somebody")

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(MESSAGE)
            work.give_up()

    with doing(work), pytest.raises(Cancelled), streaming(CHILD, MESSAGE) as child:
        child.ask(encode(StatsJob(DTYPES["uint8"], 1 << 40)), endless())
