"""Measure how fast one plain connection delivers the uploaded file."""

from collections.abc import Iterator

from benchmarks.bench import MODEL, Bench
from benchmarks.raw import raw_download, raw_peer
from benchmarks.rows import Row
from benchmarks.sample import rate, times_as_fast
from benchmarks.wire import Connection, touched


def rows(bench: Bench) -> Iterator[Row]:
    size = bench.general.stat().st_size
    memory = touched(size)
    ours, limit = [], []
    with (
        bench.server(bench.general) as server,
        raw_peer("send", bench.general) as port,
        Connection(server.base_url) as connection,
    ):
        for _ in range(bench.rounds):
            bench.warm_memory(1)
            limit.append(raw_download(port, memory))
            bench.warm_memory(1)
            ours.append(connection.get(f"{MODEL}/checkpoints/1/original", memory).seconds)
    yield Row(
        "P1",
        "plain download, 1 connection, touched memory",
        rate(size, ours),
        f"{rate(size, limit)} raw sendfile",
        times_as_fast(ours, limit),
    )
