"""Measure small checkpoints, 0.5 MB in 8 tensors (P13): how long a save and a load take, and how many fit a second."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import median

import httpx
import torch

from benchmarks.bench import Bench
from benchmarks.rows import Row
from benchmarks.sample import Bar, Sample, paired
from stateroom import Client

TENSORS, BYTES = 8, 500_000
CALLS = 50
"""Calls in a round of one client."""

CLIENTS = 8
SECONDS = 2.0
"""Time for which clients save, in a round."""


def rows(bench: Bench) -> Iterator[Row]:
    times: dict[str, list[float]] = {"empty": [], "save": [], "state_dict": [], "torch.save": []}
    rates: dict[int, list[float]] = {1: [], CLIENTS: []}
    file = bench.folder / "small.pt"
    with (
        bench.server() as server,
        httpx.Client(base_url=server.base_url) as http,  # what the client sends its requests with
        Client(server.base_url, progress=False) as client,
        ProcessPoolExecutor(CLIENTS, get_context("spawn")) as pool,
    ):
        model = client.model("bench/small")
        model.save(_state(0))
        turns: dict[str, Callable[[int], object]] = {
            "empty": lambda _: http.get("/healthz"),
            "save": lambda number: model.save(_state(number)),
            "state_dict": lambda _: model.state_dict("latest"),
            "torch.save": lambda number: torch.save(_state(number), file),
        }
        for turn in range(bench.rounds):
            for name, call in turns.items():
                times[name].append(_usual(call, turn * CALLS + 1))
            for count, each in rates.items():
                saving = partial(save_for_a_while, server.base_url, turn)
                each.append(sum(pool.map(saving, range(count))))
    empty = f"{median(times['empty']) * 1000:.2f} ms an empty request"
    for name in ("save", "state_dict"):
        ours = f"{median(times[name]) * 1000:.1f} ms"
        yield Row("P13", f"{name} of 0.5 MB, p50", ours, empty, paired(times[name], times["empty"], "less"), Bar(3))
    local = Sample(tuple(1000 * each for each in times["torch.save"]), "less", "ms")
    yield Row("P13", "torch.save of 0.5 MB to a local file, p50", measured=local)
    alone, together = rates.values()
    figures = f"{median(together):.0f} saves/s", f"{median(alone):.0f} saves/s one client"
    yield Row("P13", f"{CLIENTS} clients that save 0.5 MB at once", *figures, paired(together, alone), Bar(4))


def _state(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {f"layer{number}": torch.rand(BYTES // TENSORS // 4, generator=random) for number in range(TENSORS)}


def _usual(call: Callable[[int], object], first: int) -> float:
    """The median of the seconds of CALLS calls with the numbers from ``first`` on."""
    seconds = []
    for number in range(first, first + CALLS):
        started = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def save_for_a_while(url: str, turn: int, number: int) -> float:
    """Save for SECONDS to a model of its own, and return the saves a second. Runs in a process of its own."""
    torch.set_num_threads(1)
    saved, seed = 0, (turn * CLIENTS + number) << 20
    with Client(url, progress=False) as client:
        model = client.model(f"bench/small-{number}")
        model.save(_state(seed))
        started = time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            saved += 1
            model.save(_state(seed + saved))
        return saved / (time.perf_counter() - started)
