"""Compare derived downloads (remapped, filtered, converted, cast) with the file itself: speed and first byte."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks.bench import MANY, MODEL, Bench
from benchmarks.checkpoints import write_transposed
from benchmarks.rows import Row
from benchmarks.sample import Bar, Sample, paired, times_as_fast
from benchmarks.wire import Answer, Connection, memory_for

PLAIN = f"{MODEL}/checkpoints/1/original"
REMAPPED = f"{MODEL}/checkpoints/1/file?device=cuda:0"
FILTERED = f"{MODEL}/checkpoints/1/state_dict?component=optimizer_state_dict&exclude=state.0.*&device=cuda:0"
UNCAST = f"{MODEL}/checkpoints/1/state_dict?component=optimizer_state_dict"
CAST = f"{UNCAST}&dtype=bfloat16"
GATHERED = f"{MODEL}/checkpoints/1/state_dict?format=safetensors"
CONVERTED = f"{UNCAST}&format=safetensors"
FILTERED_MANY = f"{MODEL}/checkpoints/2/state_dict?exclude=*.0.*&device=cuda:0"
CONVERTED_MANY = f"{MODEL}/checkpoints/2/state_dict?exclude=*.0.*&format=safetensors"

FIRST_BYTE, A_TENSOR = 25, 0.03
"""Milliseconds until the first byte of a download that a fresh server plans: of any, and more for each tensor."""


def rows(bench: Bench) -> Iterator[Row]:
    memory = memory_for(bench.general, bench.many)
    with bench.server(bench.general, bench.many) as server:
        answers = by_turns(bench, server.base_url, memory)
        first: dict[str, list[float]] = {
            FILTERED: [],
            REMAPPED: [],
            CONVERTED: [],
            FILTERED_MANY: [],
            CONVERTED_MANY: [],
        }
        for path, times in first.items():
            is_long = path in {FILTERED_MANY, CONVERTED_MANY}
            for _ in range(bench.slow_turns if is_long else bench.rounds):
                with bench.spending("starting servers"):
                    server.restart()
                with Connection(server.base_url) as connection:
                    connection.get("/readyz", memory)  # as a load balancer would do before sending requests
                    times.append(connection.first_byte(path))
    plain = [answer.rate for answer in answers[PLAIN]]
    for what, path in (
        ("remapped", REMAPPED),
        ("filtered and remapped", FILTERED),
        ("converted to safetensors", CONVERTED),
    ):
        rates = [answer.rate for answer in answers[path]]
        yield Row(
            "P7",
            f"{what}: how fast it streams",
            f"{median(rates):.2f} GB/s",
            f"{median(plain):.2f} GB/s the upload itself",
            paired(rates, plain),
            Bar(0.95),
        )
    for what, path, tensors in (
        ("remapped, 147 tensors", REMAPPED, 147),
        ("filtered and remapped, 147 tensors", FILTERED, 147),
        ("converted to safetensors, 147 tensors", CONVERTED, 147),
        (f"filtered and remapped, {MANY:,} tensors", FILTERED_MANY, MANY),
        (f"converted to safetensors, {MANY:,} tensors", CONVERTED_MANY, MANY),
    ):
        limit = FIRST_BYTE + A_TENSOR * tensors
        yield Row(
            "P7",
            f"{what}: first byte, from a server just started",
            f"{1000 * median(first[path]):.1f} ms",
            f"{limit:.1f} ms = {FIRST_BYTE} + {A_TENSOR} a tensor",
            Sample(tuple(1000 * each / limit for each in first[path]), "less"),
            Bar(1),
        )
    yield cast_row(answers)
    yield gathered_row(bench)


def cast_row(answers: Mapping[str, Sequence[Answer]]) -> Row:
    uncast, cast = ([answer.seconds for answer in answers[path]] for path in (UNCAST, CAST))
    return Row(
        "P11",
        "cast from float32 to bfloat16, end to end (torch is imported already)",
        f"{median(cast):.3f} s",
        f"{median(uncast):.3f} s uncast, twice the bytes",
        times_as_fast(cast, uncast),
        Bar(1),
    )


def gathered_row(bench: Bench) -> Row:
    """Compare a file whose tensors are transposed views, put in order while they are sent, with the upload."""
    file = bench.folder / "transposed.pt"
    write_transposed(file, bench.size // 4)
    memory = memory_for(file)
    plain, gathered = [], []
    with bench.server(file) as server, Connection(server.base_url) as connection:
        file.unlink()
        connection.get(GATHERED, memory)  # reads the numbers of the file once, for its checksums
        for _ in range(bench.rounds):
            bench.warm_memory(1)
            plain.append(connection.get(PLAIN, memory).seconds)
            bench.warm_memory(1)
            gathered.append(connection.get(GATHERED, memory).seconds)
    return Row(
        "P11",
        "transposed views, put in order for safetensors, end to end",
        f"{median(gathered):.3f} s",
        f"{median(plain):.3f} s the upload itself",
        times_as_fast(gathered, plain),
        Bar(0.5),
    )


def by_turns(bench: Bench, url: str, memory: memoryview) -> dict[str, list[Answer]]:
    """The answers of all compared downloads, one after another, in every round."""
    answers: dict[str, list[Answer]] = {path: [] for path in (PLAIN, REMAPPED, FILTERED, CONVERTED, UNCAST, CAST)}
    with Connection(url) as connection:
        connection.get(CAST, memory)  # the first cast imports torch, and the first of a file computes its checksums
        for _ in range(bench.rounds):
            for path, taken in answers.items():
                bench.warm_memory(1)
                taken.append(connection.get(path, memory))
    return answers
