"""Compare a plain upload (parsed, digested and committed) with only writing its bytes to disk."""

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import MODEL, Bench
from benchmarks.peers import PEERS
from benchmarks.raw import raw_peer, raw_upload
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, rate, times_as_fast
from benchmarks.wire import Connection

WARMED = 2
"""Checkpoints whose bytes are warmed: an upload fills the page cache with one."""

RAW = "raw recv + write"
BARS = {RAW: 0.6, "nginx dav PUT": 1.6, "MLflow": 3}


def rows(bench: Bench) -> Iterator[Row]:
    size = bench.general.stat().st_size
    received = bench.folder / "received"
    received.mkdir()
    ours: list[float] = []
    raw: list[float] = []
    theirs: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    with ExitStack() as stack:
        port = stack.enter_context(raw_peer("receive", received))
        running = [(p, stack.enter_context(p.running(bench.folder / p.program))) for p in PEERS if bench.has(p)]
        for turn in range(bench.rounds):
            bench.warm_memory(WARMED)
            raw.append(raw_upload(port, bench.general))
            with bench.server() as server, Connection(server.base_url) as connection:
                bench.warm_memory(WARMED)
                ours.append(connection.put(f"{MODEL}/checkpoints", bench.general).seconds)
            for peer, url in running:
                if peer.is_slow and turn >= bench.slow_turns:
                    continue
                bench.warm_memory(WARMED)
                with Connection(url) as connection:
                    theirs[peer.name].append(connection.put(peer.path, bench.general).seconds)
                (bench.folder / peer.program / "files" / "general.tar").unlink()

    for name, seconds in ((RAW, raw), *theirs.items()):
        what = f"plain upload, beside {name}"
        if seconds:
            measured = times_as_fast(ours[: len(seconds)], seconds)
            yield Row("P3", what, rate(size, ours), rate(size, seconds), measured, Bar(BARS[name]))
        else:
            yield skipped("P3", what, f"{name} is not installed")
