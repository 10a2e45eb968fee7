"""Measure the bytes and the time of a warm start that needs 1% of a checkpoint."""

import time
from collections.abc import Iterator, Mapping
from statistics import median

import torch

from benchmarks.bench import MODEL, Bench
from benchmarks.checkpoints import ONE_PERCENT
from benchmarks.rows import Row
from benchmarks.sample import Bar, Sample, times_as_fast
from benchmarks.wire import Connection, memory_for

SPARE = 64 * 1024


def rows(bench: Bench) -> Iterator[Row]:
    weights = torch.load(bench.general, mmap=True)["model_state_dict"]
    target = {key: {"shape": list(tensor.shape), "dtype": "float32"} for key, tensor in weights.items()}
    wanted = {"target": target, "component": "model_state_dict", "include": list(ONE_PERCENT)}
    memory = memory_for(bench.general)
    whole, part = [], []
    with bench.server(bench.general) as server, Connection(server.base_url) as connection:
        for _ in range(bench.rounds):
            bench.warm_memory(1)
            whole.append(connection.get(f"{MODEL}/checkpoints/1/file", memory).seconds)
            before = connection.on_the_wire
            seconds, selected = warm_start(connection, wanted, memory)
            part.append(seconds)
            on_the_wire = connection.on_the_wire - before
    yield Row(
        "P6",
        "warm start of 1%: bytes on the wire but 64 KiB, report and requests included",
        f"{on_the_wire:,} B",
        f"{selected:,} B selected",
        Sample(((on_the_wire - SPARE) / selected,), "less"),
        Bar(1.02),
    )
    yield Row(
        "P6",
        "warm start of 1%: how many times faster than the whole",
        f"{median(part) * 1000:.1f} ms",
        f"{median(whole) * 1000:.0f} ms full download",
        times_as_fast(part, whole),
        Bar(30),
    )


def warm_start(connection: Connection, wanted: Mapping[str, object], memory: memoryview) -> tuple[float, int]:
    """Seconds for the report and its download, and the bytes of the downloaded tensors."""
    started = time.perf_counter()
    report = connection.post(f"{MODEL}/checkpoints/1/warmstart", wanted)
    connection.get(report["download"], memory)
    return time.perf_counter() - started, report["bytes"]
