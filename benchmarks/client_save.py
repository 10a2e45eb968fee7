"""Compare saving to a server with saving to a file (P4), and measure how long ``save_async`` blocks training (P5).

The file and the server's data are removed together and written again seconds later. In a virtual machine, memory freed
a moment ago is many times faster than memory that the host has taken back, and any file that stays gets the latter.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.bench import Bench
from benchmarks.rows import Row, at_least, at_most, median_ratio, rate
from stateroom import Client
from tests.support.server import Server

SPARE = 1024 * 1024
CHANGED = slice(10, None, 20)
"""The changed storages: every twentieth."""


def rows(bench: Bench) -> Iterator[Row]:
    obj = torch.load(bench.general)
    tensors = [*obj["model_state_dict"].values(), *averages(obj)]
    size = sum(tensor.nbytes for tensor in tensors)
    changed = sum(tensor.nbytes for tensor in tensors[CHANGED])
    times: dict[str, list[float]] = {"file": [], "new": [], "unchanged": [], "first": [], "second": []}
    for number in range(bench.rounds):
        with bench.server() as server, Client(server.base_url, progress=False) as client:
            model = client.model("bench/saved")
            turns: dict[str, Callable[[], object]] = {
                "file": partial(torch.save, obj, bench.folder / "saved.pt"),
                "new": partial(model.save, obj),
            }
            for name in ("file", "new") if number % 2 else ("new", "file"):
                times[name].append(seconds(turns[name]))
            times["unchanged"].append(seconds(partial(model.save, obj)))
            for tensor in tensors[CHANGED]:
                tensor.add_(1)
            before = bytes_in(server)
            model.save(obj)
            on_the_wire = bytes_in(server) - before
            for name in ("first", "second"):
                tensors[-1].add_(1)
                started = time.perf_counter()
                job = model.save_async(obj)
                times[name].append(time.perf_counter() - started)
                job.result()
        (bench.folder / "saved.pt").unlink()
    file, new, unchanged, first, second = times.values()
    peer = f"{rate(size, file):.2f} GB/s torch.save"

    ratio = median_ratio(file, new)
    yield Row("P4", "save what is new", f"{rate(size, new):.2f} GB/s", peer, f"{ratio:.2f}", ">= 1", at_least(1, ratio))
    ratio = median_ratio(file, unchanged)
    ours = f"{rate(size, unchanged):.2f} GB/s"
    yield Row("P4", "save what is unchanged", ours, peer, f"{ratio:.1f}", ">= 5", at_least(5, ratio))
    yield Row(
        "P4",
        "save with every twentieth storage changed: bytes of bodies",
        f"{on_the_wire:,} B",
        f"{changed:,} B changed",
        f"{on_the_wire / changed:.3f}",
        "<= 1.02 + 1 MiB",
        at_most(1.02, (on_the_wire - SPARE) / changed),
    )
    peer = f"{median(file) * 1000:.0f} ms torch.save"
    ratio = median_ratio(second, file)
    what, ours = "save_async holds the training, second save", f"{median(second) * 1000:.0f} ms"
    yield Row("P5", what, ours, peer, f"{ratio:.3f}", "<= 0.1", at_most(0.1, ratio))
    ours = f"{median(first) * 1000:.0f} ms"
    yield Row("P5", "save_async, a client's first save", ours, peer, f"{median_ratio(first, file):.3f}")


def averages(obj: Any) -> Iterator[torch.Tensor]:
    for state in obj["optimizer_state_dict"]["state"].values():
        yield from (state["exp_avg"], state["exp_avg_sq"])


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def bytes_in(server: Server) -> int:
    return sum(request["bytes_in"] for request in server.requests)
