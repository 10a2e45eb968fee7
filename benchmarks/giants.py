"""Measure a checkpoint of 400,000 tensors and a worker's first cast: their cost, and the wait of other requests."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median
from typing import TypeVar

from app.sandbox import CPU_SECONDS, MEMORY
from benchmarks.bench import MODEL, Bench
from benchmarks.checkpoints import write_giant
from benchmarks.many_checkpoints import p99
from benchmarks.rows import Row
from benchmarks.sample import Bar, Sample, milliseconds
from benchmarks.server_memory import Used, watched
from benchmarks.wire import Answer, Connection, memory_for
from tests.support.server import Server

T = TypeVar("T")

PARAMETERS = 100_000
"""Parameters of a model; with Adam's state there are four times as many tensors."""

SMALL = f"{MODEL}/checkpoints/1"
GIANT = f"{MODEL}/checkpoints/2"
WHOLE = f"{GIANT}/file?device=cpu"
SUBSET = f"{GIANT}/state_dict?component=model&strip_prefix=blocks.1"
CAST = f"{SMALL}/state_dict?strip_prefix=blocks.999&dtype=bfloat16"

IDLE = 1_000
"""Metadata requests for measuring an idle server."""

PAUSE = 0.01
"""Seconds between two metadata requests."""

WAIT = 50
"""Bar for the p99 of metadata requests, in milliseconds."""

UPLOAD, FIRST_BYTE, CHILD = 10, 8, 1 << 30
"""Bars: seconds of an upload, seconds to the first byte of the whole, bytes of a child process."""


_WORK = {"upload": "indexing", "whole": "planning the whole", "subset": "planning a part"}


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
    """A giant takes more than a minute, and hardly differs from turn to turn: there are two rounds at most."""
    giant = bench.folder / "giant.tar"
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # otherwise this process would keep its memory
        pool.submit(write_giant, giant, PARAMETERS).result()
    into = memory_for(giant, bench.many)
    turns: dict[str, list[Turn]] = {"upload": [], "whole": [], "subset": [], "cast": []}
    for _ in range(min(2, bench.rounds)):
        with bench.server(bench.many) as server:
            idle = _idle(server)
            turns["upload"].append(_turn(server, Connection.put, f"{MODEL}/checkpoints", giant))
            for what, path in (("whole", WHOLE), ("subset", SUBSET), ("cast", CAST)):
                with bench.spending("starting servers"):
                    server.restart()
                turns[what].append(_turn(server, Connection.get, path, into))
    giant.unlink()
    yield from _rows_of(turns, idle)


def _rows_of(turns: Mapping[str, list[Turn]], idle: list[float]) -> Iterator[Row]:
    what = f"{4 * PARAMETERS:,} tensors"
    upload = Sample(tuple(turn.answer.seconds for turn in turns["upload"]), "less", "s")
    yield Row("P12", f"{what}: upload, to the 201", measured=upload, bar=Bar(UPLOAD))
    for name, text, bar in (
        ("whole", f"{what}: the whole file, first byte, cold", Bar(FIRST_BYTE)),
        ("subset", f"{what}: a part of the model, first byte, cold", None),
        ("cast", "a worker's first cast: first byte", None),
    ):
        first = Sample(tuple(turn.answer.first_byte for turn in turns[name]), "less", "s")
        yield Row("P12", text, measured=first, bar=bar)
    for name, text in _WORK.items():
        cpu = median(turn.child.cpu_seconds for turn in turns[name])
        peaks = Sample(tuple(turn.child.peak / 2**20 for turn in turns[name]), "less", "MiB")
        allowed = f"{CPU_SECONDS} s, {MEMORY >> 20:,} MiB allowed"
        yield Row(
            "P12",
            f"{what}: {text}, memory of the child (VmHWM)",
            f"{cpu:.1f} s of processor time",
            allowed,
            peaks,
            Bar(CHILD >> 20),
        )
        grown = Sample(tuple(turn.grown / 2**20 for turn in turns[name]), "less", "MiB more")
        yield Row("P12", f"{what}: {text}, memory of the server", measured=grown)
    usual = f"{p99(idle) * 1000:.1f} ms when idle (longest {max(idle) * 1000:.0f})"
    for name, text in (*_WORK.items(), ("cast", "a worker's first cast")):
        waits = [turn.waits for turn in turns[name]]
        longest = f"longest {max(map(max, waits)) * 1000:.0f} ms"
        measured = milliseconds([p99(each) for each in waits])
        yield Row("P12", f"{text}: p99 of metadata requests meanwhile", longest, usual, measured, Bar(WAIT))


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
