"""Compare derived downloads (remapped, filtered, converted, cast) with the file itself: speed and first byte."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks.bench import MANY, MODEL, Bench
from benchmarks.rows import Row, at_least, at_most, median_ratio
from benchmarks.wire import Answer, Connection, memory_for

PLAIN = f"{MODEL}/checkpoints/1/original"
REMAPPED = f"{MODEL}/checkpoints/1/file?device=cuda:0"
FILTERED = f"{MODEL}/checkpoints/1/state_dict?component=optimizer_state_dict&exclude=state.0.*&device=cuda:0"
UNCAST = f"{MODEL}/checkpoints/1/state_dict?component=optimizer_state_dict"
CAST = f"{UNCAST}&dtype=bfloat16"
CONVERTED = f"{UNCAST}&format=safetensors"
FILTERED_MANY = f"{MODEL}/checkpoints/2/state_dict?exclude=*.0.*&device=cuda:0"
CONVERTED_MANY = f"{MODEL}/checkpoints/2/state_dict?exclude=*.0.*&format=safetensors"

TURNS = 3
"""Factor for the rounds of downloads, because they are short and their rates vary by a tenth."""


def rows(bench: Bench) -> Iterator[Row]:
    memory = memory_for(bench.general, bench.many)
    with bench.server(bench.general, bench.many) as server:
        answers = by_turns(server.base_url, memory, TURNS * bench.rounds)
        first: dict[str, list[float]] = {
            FILTERED: [],
            REMAPPED: [],
            CONVERTED: [],
            FILTERED_MANY: [],
            CONVERTED_MANY: [],
        }
        for path, times in first.items():
            for _ in range(bench.rounds):
                server.restart()
                with Connection(server.base_url) as connection:
                    connection.get("/readyz", memory)  # as a load balancer would do before sending requests
                    times.append(connection.get(path, memory).first_byte)
    plain = [answer.rate for answer in answers[PLAIN]]
    for what, path in (
        ("remapped", REMAPPED),
        ("filtered and remapped", FILTERED),
        ("converted to safetensors", CONVERTED),
    ):
        rates = [answer.rate for answer in answers[path]]
        ratio = median_ratio(rates, plain)
        yield Row(
            "P7",
            f"{what}: how fast it streams",
            f"{median(rates):.2f} GB/s",
            f"{median(plain):.2f} GB/s the upload itself",
            f"{ratio:.2f}",
            ">= 0.95",
            at_least(0.95, ratio),
        )
    for what, path, tensors in (
        ("remapped, 147 tensors", REMAPPED, 147),
        ("filtered and remapped, 147 tensors", FILTERED, 147),
        ("converted to safetensors, 147 tensors", CONVERTED, 147),
        (f"filtered and remapped, {MANY:,} tensors", FILTERED_MANY, MANY),
        (f"converted to safetensors, {MANY:,} tensors", CONVERTED_MANY, MANY),
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
    yield from cast_rows(answers)


def cast_rows(answers: Mapping[str, Sequence[Answer]]) -> Iterator[Row]:
    uncast, cast = ([answer.seconds for answer in answers[path]] for path in (UNCAST, CAST))
    ratio = median_ratio(uncast, cast)
    yield Row(
        "P11",
        "cast from float32 to bfloat16, end to end (torch is imported already)",
        f"{median(cast):.3f} s",
        f"{median(uncast):.3f} s uncast, twice the bytes",
        f"{ratio:.2f}",
        ">= 1",
        at_least(1, ratio),
    )


def by_turns(url: str, memory: memoryview, rounds: int) -> dict[str, list[Answer]]:
    """The answers of all compared downloads, one after another, ``rounds`` times."""
    answers: dict[str, list[Answer]] = {path: [] for path in (PLAIN, REMAPPED, FILTERED, CONVERTED, UNCAST, CAST)}
    with Connection(url) as connection:
        connection.get(CAST, memory)  # the first cast imports torch, and the first of a file computes its checksums
        for _ in range(rounds):
            for path, taken in answers.items():
                taken.append(connection.get(path, memory))
    return answers
