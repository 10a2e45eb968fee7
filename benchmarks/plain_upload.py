"""Compare a plain upload (parsed, digested and committed) with only writing its bytes to disk."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from benchmarks.bench import MODEL, Bench
from benchmarks.peers import PEERS
from benchmarks.raw import raw_peer, raw_upload
from benchmarks.rows import Row, at_least, median_ratio, rate
from benchmarks.wire import Connection

BARS = {"nginx dav PUT": 1.0, "MLflow": 2.5}
WHAT = "plain upload"


def rows(bench: Bench) -> Iterator[Row]:
    size = bench.general.stat().st_size
    received = bench.folder / "received"
    received.mkdir()
    ours: list[float] = []
    raw: list[float] = []
    theirs: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    with ExitStack() as stack:
        port = stack.enter_context(raw_peer("receive", received))
        running = [(p, stack.enter_context(p.running(bench.folder / p.program))) for p in PEERS if p.installed]
        for _ in range(bench.rounds):
            bench.free_memory()
            raw.append(raw_upload(port, bench.general))
            with bench.server() as server, Connection(server.base_url) as connection:
                bench.free_memory()
                ours.append(connection.put(f"{MODEL}/checkpoints", bench.general).seconds)
            for peer, url in running:
                bench.free_memory()
                with Connection(url) as connection:
                    theirs[peer.name].append(connection.put(peer.path, bench.general).seconds)
                (bench.folder / peer.program / "files" / "general.tar").unlink()

    def row(times: Sequence[float], peer: str, bar: float) -> Row:
        ratio = median_ratio(times, ours)
        figures = f"{rate(size, ours):.2f} GB/s", f"{rate(size, times):.2f} GB/s {peer}", f"{ratio:.2f}"
        return Row("P3", WHAT, *figures, f">= {bar}", at_least(bar, ratio))

    yield row(raw, "raw recv + write", 0.45)
    for peer in PEERS:
        if peer.installed:
            yield row(theirs[peer.name], peer.name, BARS[peer.name])
        else:
            bar = f">= {BARS[peer.name]}"
            yield Row("P3", WHAT, peer=f"{peer.name}: {peer.program} is not installed", bar=bar, verdict="skipped")
