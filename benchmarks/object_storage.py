"""Measure packs in an object store: a stand-in for a cloud's, and a real S3-compatible server on this machine.

The stand-in answers after 30 ms and gives 90 MB/s a connection, so it shows how well a replica hides the distance. The
real server's own speed is the limit of the other rows: raw obstore reads and writes as many bytes there.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import obstore
from obstore.store import S3Store

from benchmarks.bench import MODEL, Bench
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, Sample, milliseconds, rate, times_as_fast
from benchmarks.server_memory import watched
from benchmarks.wire import Connection, touched
from stateroom import Client
from tests.support.s3 import S3, running_s3, weed_program

PIECE = 16 * 1024 * 1024
CONNECTIONS = 4
CPU_BAR = 0.05
"""Seconds of the replica's CPU for a GB that clients fetch from the store itself."""


def rows(bench: Bench) -> Iterator[Row]:
    yield from _far_away(bench)
    if weed_program() is None:
        yield skipped("S3", "packs in an S3-compatible server", "weed is not installed")
        return
    with running_s3() as s3:
        yield from _through_a_replica(bench, s3)
        yield from _presigned(bench, s3)


def _far_away(bench: Bench) -> Iterator[Row]:
    """One download from a store like a cloud's: its rate, and its first byte with cold caches."""
    size = bench.general.stat().st_size
    memory = touched(size)
    seconds, first = [], []
    with cloud_store(bench.folder / "cloud") as env:
        for _ in range(bench.rounds):
            with bench.server(bench.general, options=("--store-url", "s3://cloud/packs"), env=env) as server:
                path = f"{MODEL}/checkpoints/1/original"
                server.process.kill()
                server.process.wait()
                server.restart()
                with Connection(server.base_url) as connection:
                    answer = connection.get(path, memory)
                first.append(answer.first_byte)
                seconds.append(answer.seconds)
    rates = Sample(tuple(size / each / 1e9 for each in seconds), "more", "GB/s")
    what = "one download from a store 30 ms away, 90 MB/s a connection"
    yield Row("S1", what, measured=rates, bar=Bar(0.5))
    yield Row("S2", "its first byte, nothing cached", measured=milliseconds(first), bar=Bar(150))


def _through_a_replica(bench: Bench, s3: S3) -> Iterator[Row]:
    """Upload and download through a replica, against raw obstore at the same server."""
    size = bench.general.stat().st_size
    memory, data = touched(size), memoryview(bench.general.read_bytes())
    times: dict[str, list[float]] = {"up": [], "down": [], "raw up": [], "raw down": []}
    bucket = s3.objects()
    with bench.server(options=("--store-url", s3.new_url()), env=s3.environment) as server:
        with watched(server.pid) as used:
            for number in range(1, bench.rounds + 1):
                keys = [f"raw/{number}/{start}" for start in range(0, size, PIECE)]
                times["raw up"].append(_seconds(partial(_put, bucket, keys, data)))
                model = f"/v1/models/bench/number{number}"
                with Connection(server.base_url) as connection:
                    times["up"].append(connection.put(f"{model}/checkpoints", bench.general).seconds)
                times["raw down"].append(_seconds(partial(_get, bucket, keys, size)))
                with Connection(server.base_url) as connection:
                    times["down"].append(connection.get(f"{model}/checkpoints/1/original", memory).seconds)
        cpu = sum(one.cpu_seconds for one in used.values()) / (2 * bench.rounds * size / 1e9)
        peak = sum(one.peak for one in used.values())
    for what, ours, raw in (("upload", "up", "raw up"), ("download", "down", "raw down")):
        peer = f"{rate(size, times[raw])} raw obstore"
        measured = times_as_fast(times[ours], times[raw])
        yield Row("S3", f"{what} through a replica", rate(size, times[ours]), peer, measured, Bar(0.8))
    what = "the replica's CPU for a GB up or down, and its memory"
    yield Row("S3", what, f"{cpu:.2f} s, {peak >> 20} MiB")


def _presigned(bench: Bench, s3: S3) -> Iterator[Row]:
    """Loads whose storages come from the store itself."""
    env = {**s3.environment, "STATEROOM_PRESIGN": "on"}
    with (
        bench.server(bench.general, options=("--store-url", s3.new_url()), env=env) as server,
        Client(server.base_url, progress=False) as client,
        watched(server.pid) as used,
    ):
        model = client.model("bench/general")
        model.load("latest")
        before = sum(one.cpu_seconds for one in used.values())
        times = [_seconds(lambda: model.load("latest")) for _ in range(bench.rounds)]
    size = bench.general.stat().st_size
    cpu = (sum(one.cpu_seconds for one in used.values()) - before) / (bench.rounds * size / 1e9)
    figure = f"{rate(size, times)}, {cpu:.3f} s"
    what = "presigned load: its rate, and the replica's CPU for a GB"
    yield Row("S4", what, figure, measured=Sample((cpu,), "less"), bar=Bar(CPU_BAR))


@contextmanager
def cloud_store(folder: Path) -> Iterator[Mapping[str, str]]:
    """Run the stand-in; yield the environment of a server that uses it."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-m", "benchmarks.cloud_store", str(port), str(folder)]) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield {
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "STATEROOM_STORE_ENDPOINT": f"http://127.0.0.1:{port}",
            }
        finally:
            process.kill()


def _put(bucket: S3Store, keys: list[str], data: memoryview) -> None:
    def put(number: int) -> None:
        obstore.put(bucket, keys[number], data[number * PIECE : (number + 1) * PIECE], use_multipart=False)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(put, range(len(keys))))


def _get(bucket: S3Store, keys: list[str], size: int) -> None:
    def get(number: int) -> int:
        end = min(PIECE, size - number * PIECE)
        return len(obstore.get_range(bucket, keys[number], start=0, end=end))

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        assert sum(threads.map(get, range(len(keys)))) == size


def _seconds(work: object) -> float:
    assert callable(work)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
