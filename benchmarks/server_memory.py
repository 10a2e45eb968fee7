"""Measure how much the server's memory grows with the size of a transfer."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import MODEL, Bench
from benchmarks.checkpoints import write_general
from benchmarks.rows import Row
from benchmarks.sample import Bar, Sample
from benchmarks.wire import Connection, memory_for

SMALL = 64 << 20
BAR = 64 << 20
LOOK_SECONDS = 0.02


@dataclass(slots=True)
class Used:
    """The resources that a process has used: ``peak`` is its memory high-water mark (VmHWM), in bytes."""

    peak: int = 0
    cpu_seconds: float = 0.0


def rows(bench: Bench) -> Iterator[Row]:
    small, big = peak(bench, SMALL), peak(bench, bench.big)
    yield Row(
        "P8",
        f"server memory for a {bench.big >> 20:,} MiB upload and download, all processes (VmHWM)",
        f"{big >> 20} MiB",
        f"{small >> 20} MiB for {SMALL >> 20} MiB",
        Sample(((big - small) / 2**20,), "less", "MiB more"),
        Bar(BAR >> 20),
    )


def peak(bench: Bench, size: int) -> int:
    """Peak memory, in bytes, of a fresh server that receives and sends a checkpoint of ``size`` bytes."""
    with bench.server() as server, watched(server.pid) as used, Connection(server.base_url) as connection:
        transfer(connection, bench.folder / "memory.tar", size)
    return sum(one.peak for one in used.values())


def transfer(connection: Connection, file: Path, size: int) -> None:
    """Send a checkpoint of ``size`` bytes; receive it unchanged, remapped, and in part cast and as safetensors. It is
    written to ``file``, which is deleted.
    """
    write_general(file, size)
    connection.put(f"{MODEL}/checkpoints", file)
    into = memory_for(file)
    file.unlink()
    connection.get(f"{MODEL}/checkpoints/1/original", into)
    connection.get(f"{MODEL}/checkpoints/1/file?device=cuda:0", into)
    for query in ("dtype=bfloat16", "dtype=float16&format=safetensors"):
        connection.get(f"{MODEL}/checkpoints/1/state_dict?component=optimizer_state_dict&{query}", into)


@contextmanager
def watched(pid: int) -> Iterator[dict[int, Used]]:
    """The resources of a process and of all its descendants, by pid. Updated while the process runs, so that
    short-lived children count too.
    """
    used: dict[int, Used] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            look(pid, used)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield used
        look(pid, used)
    finally:
        done.set()
        watcher.join()


def look(pid: int, used: dict[int, Used]) -> None:
    folder = Path(f"/proc/{pid}")
    try:
        status = (folder / "status").read_text()
        times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]  # utime and stime (proc(5)), in ticks
        children = [
            int(child) for task in (folder / "task").iterdir() for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return  # the process has ended
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            # The latest value, not the largest: until exec, a child shows the memory of its parent.
            used[pid] = Used(int(line.split()[1]) << 10, sum(map(int, times)) / os.sysconf("SC_CLK_TCK"))
    for child in children:
        look(child, used)
