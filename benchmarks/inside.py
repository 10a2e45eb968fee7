"""Measure how fast statistics and differences are computed, beside the plain download of the same file."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import MANY, MODEL, Bench
from benchmarks.checkpoints import write_general
from benchmarks.rows import Row
from benchmarks.sample import milliseconds, rate, times_as_fast
from benchmarks.server_memory import watched
from benchmarks.wire import Connection, touched

CHECKPOINTS = f"{MODEL}/checkpoints"


def rows(bench: Bench) -> Iterator[Row]:
    yield from of_numbers(bench)
    yield of_keys(bench)
    yield of_memory(bench)


def of_numbers(bench: Bench) -> Iterator[Row]:
    """Statistics of a general checkpoint on a server that has none yet, and its distance from another one."""
    size, other = bench.general.stat().st_size, bench.folder / "other.tar"
    write_scaled(bench.general, other)
    memory = touched(size)
    download, stats, diff = [], [], []
    for _ in range(bench.rounds):
        with bench.server(bench.general, other) as server, Connection(server.base_url) as connection:
            download.append(connection.get(f"{CHECKPOINTS}/1/original", memory).seconds)
            stats.append(seconds_of(connection, f"{CHECKPOINTS}/1/stats?limit=1000", memory))
            diff.append(seconds_of(connection, f"{CHECKPOINTS}/1/diff/2?numeric=true", memory))
    plain = f"{rate(size, download)} plain download"
    what = "statistics of all tensors, read for the first time"
    yield Row("inside", what, rate(size, stats), plain, times_as_fast(stats, download))
    measured = times_as_fast(diff, [2 * each for each in download])
    yield Row("inside", "numeric diff, bytes of both checkpoints", rate(2 * size, diff), plain, measured)


def of_keys(bench: Bench) -> Row:
    """A diff by digests, the first of a fresh server: it reads and parses both manifests."""
    other, timed = bench.folder / "many-other.pt", []
    write_scaled(bench.many, other)
    memory = touched(16 << 20)
    for _ in range(bench.rounds):
        with bench.server(bench.many, other) as server, Connection(server.base_url) as connection:
            timed.append(connection.get(f"{CHECKPOINTS}/1/diff/2?limit=10000", memory).seconds)
    return Row("inside", f"diff of {MANY:,} changed keys by digests, on one page", measured=milliseconds(timed))


def of_memory(bench: Bench) -> Row:
    file, memory = bench.folder / "big.tar", touched(16 << 20)
    write_general(file, bench.big)
    with bench.server(file) as server:
        file.unlink()
        with watched(server.pid) as used, Connection(server.base_url) as connection:
            seconds_of(connection, f"{CHECKPOINTS}/1/stats?limit=1000", memory)
    peaks = sorted((one.peak >> 20 for one in used.values()), reverse=True)
    what = f"memory (VmHWM) for the statistics of {bench.big >> 20:,} MiB: server, and its child processes"
    return Row("inside", what, f"{peaks[0]} MiB, {max(peaks[1:], default=0)} MiB")


def seconds_of(connection: Connection, path: str, memory: memoryview) -> float:
    """The seconds of all pages of a listing."""
    started, cursor = time.perf_counter(), ""
    while True:
        answer = connection.get(path + cursor, memory)
        page: dict[str, Any] = json.loads(bytes(memory[: answer.nbytes]))
        if page["next"] is None:
            return time.perf_counter() - started
        cursor = f"&cursor={page['next']}"


def write_scaled(source: Path, target: Path) -> None:
    """Write a checkpoint whose every tensor differs a little from that of ``source``."""

    def scaled(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value * 1.01 + 1
        return {key: scaled(each) for key, each in value.items()} if isinstance(value, dict) else value

    torch.save(scaled(torch.load(source)), target)
