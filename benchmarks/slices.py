"""Measure the bytes on the wire, and the time, of one tensor's rows and shards and of a warm start's corners."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from benchmarks.bench import MANY, MODEL, Bench
from benchmarks.rows import Row
from benchmarks.sample import Bar, Sample, milliseconds
from benchmarks.warm_start import warm_start
from benchmarks.wire import Connection, memory_for

ROWS, WIDTH = 50_000, 1_024
SPARE = 64 * 1024

SLICES = {
    "10 rows of 50,000": ("rows=100:110", 10 * WIDTH * 4),
    "5,000 rows": ("rows=20000:25000", 5_000 * WIDTH * 4),
    "5,000 rows, raw": ("rows=20000:25000&format=raw", 5_000 * WIDTH * 4),
    "5,000 rows as bfloat16": ("rows=20000:25000&dtype=bfloat16", 5_000 * WIDTH * 2),
    "one of 8 shards of rows": ("shard=3/8", ROWS // 8 * WIDTH * 4),
    "one of 8 shards of columns": ("dim=1&shard=3/8", ROWS * WIDTH // 8 * 4),
}
"""Queries of the tensor, and the bytes of the elements that each asks for."""

CORNERS = {
    "corner of 30,000 rows": ([30_000, WIDTH], "float32", 30_000 * WIDTH * 4),
    "corner of 100 columns": ([60_000, 100], "float32", ROWS * 100 * 4),
    "corner of 30,000 rows as bfloat16": ([30_000, WIDTH], "bfloat16", 30_000 * WIDTH * 2),
}


def write_embedding(path: Path) -> None:
    values = torch.empty(ROWS, WIDTH).uniform_(generator=torch.Generator().manual_seed(0))
    torch.save({"model_state_dict": {"embedding.weight": values, "bias": torch.zeros(WIDTH)}}, path)


def rows(bench: Bench) -> Iterator[Row]:
    embedding = bench.folder / "embedding.pt"
    write_embedding(embedding)
    memory = memory_for(embedding)
    with bench.server(embedding, bench.many) as server, Connection(server.base_url) as connection:
        url = f"{MODEL}/checkpoints/1"
        connection.get(f"{url}/tensors/bias?dtype=bfloat16", memory)  # the first cast imports torch
        for what, (query, size) in SLICES.items():
            yield _row(
                what, size, *_fetched(connection, f"{url}/tensors/embedding.weight?{query}", memory, bench.rounds)
            )
        for what, (shape, dtype, size) in CORNERS.items():
            target = {"embedding.weight": {"shape": shape, "dtype": dtype}}
            before = connection.on_the_wire
            wanted = {"target": target, "resize": "slice", "dtype": "target", "device": "cpu"}
            seconds, _ = warm_start(connection, wanted, memory)
            yield _row(f"warm start, {what}", size, connection.on_the_wire - before, seconds)
        first = [
            connection.get(f"{MODEL}/checkpoints/2/tensors/blocks.{number}.weight?rows=0:9", memory).seconds
            for number in range(bench.rounds)
        ]
        name = f"9 numbers of one tensor of {MANY:,}, planned anew each time"
        yield Row("slices", name, measured=milliseconds(first))


def _fetched(connection: Connection, path: str, memory: memoryview, rounds: int) -> tuple[int, float]:
    """Return the bytes on the wire of one request, and the median of its seconds."""
    before = connection.on_the_wire
    seconds = [connection.get(path, memory).seconds for _ in range(rounds)]
    return (connection.on_the_wire - before) // rounds, median(seconds)


def _row(what: str, size: int, on_the_wire: int, seconds: float) -> Row:
    return Row(
        "slices",
        f"{what}: bytes on the wire but 64 KiB, heads included",
        f"{on_the_wire:,} B in {seconds * 1000:.1f} ms",
        f"{size:,} B of elements",
        Sample(((on_the_wire - SPARE) / size,), "less"),
        Bar(1.02),
    )
