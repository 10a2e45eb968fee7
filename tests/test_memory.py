"""The server's memory depends on the number of transfers, never on their size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from benchmarks.bench import MODEL
from benchmarks.server_memory import Used, transfer, watched
from benchmarks.wire import Connection, memory_for
from tests.support.measure import IS_LONG, long, measure
from tests.support.server import start_server

MiB = 1 << 20

LARGE = measure(160, 192) * MiB

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


@long
def test_a_large_transfer_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    assert_takes_no_more(partial(peak_of_a_transfer, tmp_path), 64 * MiB, LARGE)


def test_putting_a_large_view_in_order_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    assert_takes_no_more(partial(peak_of_a_transposed_matrix, tmp_path), 2048, 6144)


@long
def test_the_statistics_of_a_large_tensor_take_no_more_memory_than_those_of_a_small_one(tmp_path: Path) -> None:
    """Of the server and the child process together. The small one fills the buffers, and is kept for its histogram."""
    assert_takes_no_more(partial(peak_of_looking_inside, tmp_path), 60 * MiB // 4, LARGE // 4)


@long
@pytest.mark.skipif(not IS_LONG, reason="it reads as the statistics do: make stress runs it")
def test_a_merge_of_large_tensors_takes_no_more_memory_than_one_of_small_ones(tmp_path: Path) -> None:
    assert_takes_no_more(partial(peak_of_a_merge, tmp_path), 64 * MiB // 4, LARGE // 4)


@contextmanager
def fresh_server(folder: Path) -> Iterator[tuple[Connection, dict[int, Used]]]:
    """A server with a connection to it, and the memory that it and its children use. What the server has from the
    process that it was forked from counts too: it is the same for each.
    """
    with TemporaryDirectory(dir=folder) as data_dir:
        server = start_server(Path(data_dir) / "data", env={"STATEROOM_DURABLE": "off"})
        try:
            with watched(server.pid) as used, Connection(server.base_url) as connection:
                yield connection, used
        finally:
            server.kill()


def total(used: dict[int, Used]) -> int:
    return sum(one.peak for one in used.values())


def peak_of_a_transfer(folder: Path, size: int) -> int:
    with fresh_server(folder) as (connection, used):
        transfer(connection, folder / "memory.tar", size)
    return total(used)


def peak_of_looking_inside(folder: Path, numel: int) -> int:
    """The peak memory of a server that computes the statistics of a tensor, and its distance from another."""
    file = folder / "large.pt"
    into = memoryview(bytearray(MiB))
    with fresh_server(folder) as (connection, used):
        for value in (1.0, 2.0):
            torch.save({"w": torch.full((numel,), value)}, file)
            connection.put(f"{MODEL}/checkpoints", file)
        connection.get(f"{MODEL}/checkpoints/latest/stats", into)
        connection.get(f"{MODEL}/checkpoints/1/diff/2?numeric=true", into)
    return total(used)


def peak_of_a_transposed_matrix(folder: Path, rows: int) -> int:
    file = folder / "transposed.pt"
    torch.save({"w": torch.zeros(rows, rows).t()}, file)
    into = memory_for(file)
    with fresh_server(folder) as (connection, used):
        connection.put(f"{MODEL}/checkpoints", file)
        connection.get(f"{MODEL}/checkpoints/1/state_dict?format=safetensors", into)
    return total(used)


def peak_of_a_merge(folder: Path, numel: int) -> int:
    """The peak memory of a server that merges three tensors, one of which was saved transposed, and of the children."""
    file = folder / "large.pt"
    rows = numel // 1024
    with fresh_server(folder) as (connection, used):
        for number in range(3):
            table = torch.arange(1024.0).remainder(5 + number)
            torch.save(
                {"w": table.repeat_interleave(rows).view(1024, rows).t() if number == 1 else table.repeat(rows, 1)},
                file,
            )
            connection.put(f"{MODEL}/checkpoints", file)
        for body in ({"of": ["1", "2", "3"]}, {"of": ["1", "3"], "method": "slerp"}):
            connection.post(f"{MODEL}/merge", body)
    return total(used)
