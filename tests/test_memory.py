"""The server's memory depends on the number of transfers, never on their size."""

from pathlib import Path

import torch

from benchmarks.bench import MODEL, Bench
from benchmarks.server_memory import peak, watched
from benchmarks.wire import Connection, memory_for

MiB = 1 << 20


def test_a_large_transfer_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, size=0, big=0, rounds=1)
    small, large = peak(bench, 64 * MiB), peak(bench, 256 * MiB)
    assert large - small <= 64 * MiB


def test_putting_a_large_view_in_order_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, size=0, big=0, rounds=1)
    small, large = (peak_of_a_transposed_matrix(bench, rows) for rows in (2048, 8192))
    assert large - small <= 64 * MiB


def peak_of_a_transposed_matrix(bench: Bench, rows: int) -> int:
    file = bench.folder / "transposed.pt"
    torch.save({"w": torch.zeros(rows, rows).t()}, file)
    into = memory_for(file)
    with bench.server() as server, watched(server.pid) as used, Connection(server.base_url) as connection:
        connection.put(f"{MODEL}/checkpoints", file)
        connection.get(f"{MODEL}/checkpoints/1/state_dict?format=safetensors", into)
    return sum(one.peak for one in used.values())
