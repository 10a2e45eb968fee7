"""Measure the worst effect of one request to each route on others: event loop, memory, metadata requests."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from benchmarks.bench import Bench
from benchmarks.many_checkpoints import p99
from benchmarks.rows import Row
from benchmarks.sample import Bar, Sample
from tests.support.worst_bodies import MODEL, Worst, fill, peak, reset_peak, worst_requests

SCALE = 400_000
PAUSE = 0.005
"""Seconds between two requests of the observer."""

LOOP, MEMORY, METADATA = 0.1, 256 << 20, 0.2
"""Bars: seconds that a request may block the event loop, bytes that it may take, p99 of metadata in seconds."""


@dataclass(slots=True)
class _Seen:
    """The times of the observer's requests: one that the event loop answers itself, and one to the catalog."""

    loop: list[float] = field(default_factory=list)
    metadata: list[float] = field(default_factory=list)


def rows(bench: Bench) -> Iterator[Row]:
    scale = min(SCALE, max(1_000, bench.size // 2_500))
    with bench.server() as server, server.client(timeout=600) as http, server.client(timeout=600) as other:
        place = fill(http, scale)
        until = time.perf_counter() + 2
        idle = _look(other, lambda: time.perf_counter() > until)
        yield Row(
            "worst", "nothing, for comparison", f"loop {1000 * max(idle.loop):.0f} ms", f"{scale:,} keys of each thing"
        )
        for each in worst_requests(place, scale):
            yield _row(each, http, other, server.pid)


def _look(http: httpx.Client, is_over: Callable[[], bool]) -> _Seen:
    seen = _Seen()
    while len(seen.loop) < 2 or not is_over():  # a single value has no p99
        for path, times in (("/healthz", seen.loop), (f"{MODEL}/checkpoints/2", seen.metadata)):
            started = time.perf_counter()
            http.get(path)
            times.append(time.perf_counter() - started)
        time.sleep(PAUSE)
    return seen


def _row(each: Worst, http: httpx.Client, other: httpx.Client, pid: int) -> Row:
    body = each.body()
    before = reset_peak(pid)
    with ThreadPoolExecutor(1) as pool:
        started = time.perf_counter()
        answer = pool.submit(http.request, each.route[0], each.path, content=body, headers=each.headers)
        seen = _look(other, answer.done)
        took = time.perf_counter() - started
    grown = peak(pid) - before
    held, slow = max(seen.loop), p99(seen.metadata)
    share = max(held / LOOP, grown / MEMORY, slow / METADATA)
    return Row(
        "worst",
        f"{each.route[0]} {each.route[1].removeprefix('/v1/').replace('{namespace}/{name}', 'M')}, {each.what}",
        f"loop {1000 * held:.0f} ms, +{grown >> 20} MiB, p99 {1000 * slow:.0f} ms",
        f"{answer.result().status_code} after {took:.2f} s, {len(answer.result().content):,} bytes",
        Sample((share,), "less"),
        Bar(1, "1 of 100 ms, 256 MiB, 200 ms"),
    )
