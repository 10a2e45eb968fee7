"""The jobs of the child process that computes, and their answers, as JSON."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..sandbox.streaming import Child
from ..values.dtype import DTYPES, DType
from ..values.tensor_numbers import Distance, Histogram, TensorStats

KEPT = 64 * 1024 * 1024
"""Bytes of a tensor that the child keeps for its histogram. A larger one is sent a second time."""

CHILD = f"{__package__}.compute"
"""The module that the child process runs."""

Messages = Iterable[memoryview | bytes]


@dataclass(frozen=True, slots=True)
class StatsJob:
    """Compute the statistics of elements of ``nbytes`` in all; without a histogram, if it needs a second look."""

    dtype: DType
    nbytes: int


@dataclass(frozen=True, slots=True)
class HistogramJob:
    """Count the elements in the bins from ``low`` to ``high``."""

    dtype: DType
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DistanceJob:
    """Compare two tensors. Their messages take turns, and are of equally many elements."""

    dtype: DType
    other: DType


Job = StatsJob | HistogramJob | DistanceJob


def encode(job: Job) -> bytes:
    match job:
        case StatsJob(dtype, nbytes):
            return _json({"stats": {"dtype": dtype.name, "nbytes": nbytes}})
        case HistogramJob(dtype, low, high):
            return _json({"histogram": {"dtype": dtype.name, "low": low, "high": high}})
        case DistanceJob(dtype, other):
            return _json({"distance": {"dtype": dtype.name, "other": other.name}})


def decode(data: bytes) -> Job:
    ((kind, fields),) = json.loads(data).items()
    dtype = DTYPES[fields["dtype"]]
    match kind:
        case "stats":
            return StatsJob(dtype, fields["nbytes"])
        case "histogram":
            return HistogramJob(dtype, fields["low"], fields["high"])
        case _:
            return DistanceJob(dtype, DTYPES[fields["other"]])


def stats_from_json(data: bytes | str) -> TensorStats:
    fields = json.loads(data)
    histogram = fields.pop("histogram")
    return TensorStats(**fields, histogram=None if histogram is None else _histogram(histogram))


def compute_stats(child: Child, job: StatsJob, messages: Messages) -> TensorStats:
    return stats_from_json(child.ask(encode(job), messages))


def compute_histogram(child: Child, job: HistogramJob, messages: Messages) -> Histogram:
    return _histogram(json.loads(child.ask(encode(job), messages)))


def compute_distance(child: Child, job: DistanceJob, messages: Messages) -> Distance:
    return Distance(**json.loads(child.ask(encode(job), messages)))


def _histogram(fields: dict[str, Any]) -> Histogram:
    return Histogram(**{**fields, "counts": tuple(fields["counts"])})


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()
