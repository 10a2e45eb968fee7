"""Are derived downloads (remapped, filtered) as fast as the file itself, and how soon does one begin?"""

from collections.abc import Iterator
from statistics import median

from benchmarks.bench import MANY, MODEL, Bench
from benchmarks.rows import Row, at_least, at_most, median_ratio
from benchmarks.wire import Answer, Connection, memory_for

PLAIN = f"{MODEL}/checkpoints/1/original"
REMAPPED = f"{MODEL}/checkpoints/1/file?device=cuda:0"
FILTERED = f"{MODEL}/checkpoints/1/state_dict?component=optimizer_state_dict&exclude=state.0.*&device=cuda:0"
FILTERED_MANY = f"{MODEL}/checkpoints/2/state_dict?exclude=*.0.*&device=cuda:0"

TURNS = 3
"""Downloads are short, and their rates differ by a tenth from one to the next: they take this many times the rounds."""


def rows(bench: Bench) -> Iterator[Row]:
    memory = memory_for(bench.general, bench.many)
    with bench.server(bench.general, bench.many) as server:
        plain, remapped, filtered = streaming(server.base_url, memory, TURNS * bench.rounds)
        first: dict[str, list[float]] = {FILTERED: [], REMAPPED: [], FILTERED_MANY: []}
        for path, times in first.items():
            for _ in range(bench.rounds):
                server.restart()
                with Connection(server.base_url) as connection:
                    connection.get("/readyz", memory)  # as whoever sends it requests would have asked
                    times.append(connection.get(path, memory).first_byte)
    for what, answers in (("remapped", remapped), ("filtered and remapped", filtered)):
        ratio = median_ratio([a.rate for a in answers], [a.rate for a in plain])
        yield Row(
            "P7",
            f"{what}: how fast it streams",
            f"{median(a.rate for a in answers):.2f} GB/s",
            f"{median(a.rate for a in plain):.2f} GB/s the upload itself",
            f"{ratio:.2f}",
            ">= 0.95",
            at_least(0.95, ratio),
        )
    yield Row("P7", "converted to safetensors: how fast it streams", bar=">= 0.95", verdict="not yet built")
    for what, path, tensors in (
        ("remapped, 147 tensors", REMAPPED, 147),
        ("filtered and remapped, 147 tensors", FILTERED, 147),
        (f"filtered and remapped, {MANY:,} tensors", FILTERED_MANY, MANY),
    ):
        ours, limit = 1000 * median(first[path]), 30 + 0.1 * tensors
        yield Row(
            "P7",
            f"{what}: first byte, from a server just started",
            f"{ours:.1f} ms",
            f"{limit:.1f} ms = 30 + 0.1 a tensor",
            f"{ours / limit:.2f}",
            "<= 1",
            at_most(1, ours / limit),
        )


def streaming(url: str, memory: memoryview, rounds: int) -> tuple[list[Answer], list[Answer], list[Answer]]:
    """The three downloads by turns."""
    plain, remapped, filtered = [], [], []
    with Connection(url) as connection:
        for _ in range(rounds):
            plain.append(connection.get(PLAIN, memory))
            remapped.append(connection.get(REMAPPED, memory))
            filtered.append(connection.get(FILTERED, memory))
    return plain, remapped, filtered
