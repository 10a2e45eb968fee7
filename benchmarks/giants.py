"""Measure a checkpoint of 400,000 tensors and a worker's first cast: their cost, and the wait of other requests."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TypeVar

from app.sandbox import CPU_SECONDS, MEMORY
from benchmarks.bench import MODEL, Bench
from benchmarks.checkpoints import write_giant
from benchmarks.many_checkpoints import p99
from benchmarks.rows import Row, at_most
from benchmarks.server_memory import Used, watched
from benchmarks.wire import Answer, Connection, memory_for
from tests.support.server import Server

T = TypeVar("T")

PARAMETERS = 25_000, 100_000
SMALL = f"{MODEL}/checkpoints/1"
GIANT = f"{MODEL}/checkpoints/2"
WHOLE = f"{GIANT}/file?device=cpu"
SUBSET = f"{GIANT}/state_dict?component=model&strip_prefix=blocks.1"
CAST = f"{SMALL}/state_dict?strip_prefix=blocks.999&dtype=bfloat16"

IDLE = 1_000
"""Metadata requests for measuring an idle server."""

PAUSE = 0.01
"""Seconds between two metadata requests."""

WAIT = 0.05
"""Bar for the p99 of metadata requests, in seconds."""


@dataclass(slots=True)
class Turn:
    """One request to a server, its cost, and the times of metadata requests during it, in seconds.

    ``grown`` is the growth of the server's own high-water mark, in bytes; ``child`` is the use of its child process.
    """

    answer: Answer
    waits: list[float] = field(default_factory=list)
    grown: int = 0
    child: Used = field(default_factory=Used)


def rows(bench: Bench) -> Iterator[Row]:
    """Run everything once: a giant takes half a minute, in which hundreds of other requests are answered."""
    for parameters in PARAMETERS:
        giant = bench.folder / "giant.tar"
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # otherwise this process would keep its memory
            pool.submit(write_giant, giant, parameters).result()
        into = memory_for(giant, bench.many)
        with bench.server(bench.many) as server:
            idle = _idle(server)
            turns = {"upload": _turn(server, Connection.put, f"{MODEL}/checkpoints", giant)}
            for what, path in (("whole", WHOLE), ("subset", SUBSET)):
                server.restart()
                turns[what] = _turn(server, Connection.get, path, into)
            yield from _rows_of(f"{4 * parameters:,} tensors", turns, idle)
    with bench.server(bench.many) as server:
        idle = _idle(server)
        turn = _turn(server, Connection.get, CAST, into)
        yield Row("giants", "a worker's first cast: first byte", f"{turn.answer.first_byte:.2f} s")
        yield from _waits("a worker's first cast", turn.waits, idle)


def _rows_of(what: str, turns: Mapping[str, Turn], idle: list[float]) -> Iterator[Row]:
    upload = turns["upload"].answer.seconds
    yield Row("giants", f"{what}: upload, to the 201", f"{upload:.1f} s")
    for name, text in (("whole", "the whole file"), ("subset", "a part of the model")):
        yield Row("giants", f"{what}: {text}, first byte, cold", f"{turns[name].answer.first_byte:.1f} s")
    for name, text in (("upload", "indexing"), ("whole", "planning the whole"), ("subset", "planning a part")):
        turn = turns[name]
        yield Row(
            "giants",
            f"{what}: {text}, CPU of the child",
            f"{turn.child.cpu_seconds:.1f} s",
            f"{CPU_SECONDS} s allowed",
            f"{turn.child.cpu_seconds / CPU_SECONDS:.2f}",
        )
        yield Row(
            "giants",
            f"{what}: {text}, memory of the child (VmHWM)",
            f"{turn.child.peak >> 20:,} MiB",
            f"{MEMORY >> 20:,} MiB allowed",
            f"{turn.child.peak / MEMORY:.2f}",
        )
        yield Row("giants", f"{what}: {text}, memory of the server", f"+{turn.grown >> 20:,} MiB")
        yield from _waits(f"{what}: {text}", turn.waits, idle)


def _waits(what: str, waits: list[float], idle: list[float]) -> Iterator[Row]:
    yield Row(
        "giants",
        f"{what}, p99 of {len(waits)} metadata requests meanwhile",
        f"{p99(waits) * 1000:.1f} ms (longest {max(waits) * 1000:.0f})",
        f"{p99(idle) * 1000:.1f} ms when idle (longest {max(idle) * 1000:.0f})",
        "",
        f"<= {WAIT * 1000:.0f} ms",
        at_most(WAIT, p99(waits)),
    )


def _idle(server: Server) -> list[float]:
    with Connection(server.base_url) as connection:
        return [_ask(connection) for _ in range(IDLE)]


def _turn(server: Server, ask: Callable[[Connection, str, T], Answer], path: str, body: T) -> Turn:
    """``ask`` a server for ``path``, while another connection sends metadata requests."""
    with Connection(server.base_url) as working, Connection(server.base_url) as asking, ThreadPoolExecutor(1) as pool:
        asking.get("/readyz", memoryview(bytearray(1 << 16)))
        waits = [_ask(asking)]
        with watched(server.pid) as used:
            while server.pid not in used:
                time.sleep(PAUSE)
            before = used[server.pid].peak
            answer = pool.submit(ask, working, path, body)
            while not answer.done():
                waits.append(_ask(asking))
                time.sleep(PAUSE)
        turn = Turn(answer.result(), waits, used.pop(server.pid).peak - before)
    for child in used.values():
        turn.child = child
    return turn


def _ask(connection: Connection) -> float:
    return connection.get(SMALL, memoryview(bytearray(1 << 16))).seconds
