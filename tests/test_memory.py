"""The server's memory depends on the number of transfers, never on their size."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.bench import MODEL, Bench
from benchmarks.server_memory import peak, watched
from benchmarks.wire import Connection, memory_for

MiB = 1 << 20


MORE = 64 * MiB
"""Most bytes that a large transfer may take beside those of a small one."""

TRIES = 3


def assert_takes_no_more(peak_of: Callable[[int], int], small: int, large: int) -> None:
    """Assert that the peak of a large transfer is about that of a small one. Which threads have buffers at once, and
    what the allocator keeps for each, is chance; what grows with the size does so at each try.
    """
    limit = peak_of(small) + MORE
    peaks: list[int] = []
    while not peaks or peaks[-1] > limit:
        assert len(peaks) < TRIES, (limit, peaks)
        peaks.append(peak_of(large))


def test_a_large_transfer_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, size=0, big=0, rounds=1)
    assert_takes_no_more(partial(peak, bench), 64 * MiB, 256 * MiB)


def test_putting_a_large_view_in_order_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, size=0, big=0, rounds=1)
    assert_takes_no_more(partial(peak_of_a_transposed_matrix, bench), 2048, 8192)


def test_the_statistics_of_a_large_tensor_take_no_more_memory_than_those_of_a_small_one(tmp_path: Path) -> None:
    """Of the server and the child process together. The small one fills the buffers, and is kept for its histogram."""
    bench = Bench(tmp_path, size=0, big=0, rounds=1)
    assert_takes_no_more(partial(peak_of_looking_inside, bench), 60 * MiB // 4, 256 * MiB // 4)


def peak_of_looking_inside(bench: Bench, numel: int) -> int:
    """The peak memory of a server that computes the statistics of two tensors, and their distance."""
    file = bench.folder / "large.pt"
    into = memoryview(bytearray(MiB))
    with bench.server() as server, watched(server.pid) as used, Connection(server.base_url) as connection:
        for value in (1.0, 2.0):
            torch.save({"w": torch.full((numel,), value)}, file)
            connection.put(f"{MODEL}/checkpoints", file)
            connection.get(f"{MODEL}/checkpoints/latest/stats", into)
        connection.get(f"{MODEL}/checkpoints/1/diff/2?numeric=true", into)
    return sum(one.peak for one in used.values())


def peak_of_a_transposed_matrix(bench: Bench, rows: int) -> int:
    file = bench.folder / "transposed.pt"
    torch.save({"w": torch.zeros(rows, rows).t()}, file)
    into = memory_for(file)
    with bench.server() as server, watched(server.pid) as used, Connection(server.base_url) as connection:
        connection.put(f"{MODEL}/checkpoints", file)
        connection.get(f"{MODEL}/checkpoints/1/state_dict?format=safetensors", into)
    return sum(one.peak for one in used.values())
