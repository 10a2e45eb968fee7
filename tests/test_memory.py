"""What a transfer costs the server in memory follows from how many there are, never from how large they are."""

from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.server_memory import peak

MiB = 1 << 20


def test_a_large_transfer_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, size=0, big=0, rounds=1)
    small, large = peak(bench, 64 * MiB), peak(bench, 512 * MiB)
    assert large - small <= 64 * MiB
