"""Measure how fast one plain connection delivers the uploaded file."""

from collections.abc import Iterator

from benchmarks.bench import MODEL, Bench
from benchmarks.raw import raw_download, raw_peer
from benchmarks.rows import Row, median_ratio, rate
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
            limit.append(raw_download(port, memory))
            ours.append(connection.get(f"{MODEL}/checkpoints/1/original", memory).seconds)
    ratio = median_ratio(limit, ours)
    yield Row(
        "P1",
        "plain download, 1 connection, touched memory",
        f"{rate(size, ours):.2f} GB/s",
        f"{rate(size, limit):.2f} GB/s raw sendfile",
        f"{ratio:.2f}",
    )
