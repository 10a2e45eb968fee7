"""Compare saving to a server with saving to a file (P4), and measure how long ``save_async`` blocks training (P5).

The first pair of a round takes memory as it comes: the file and the server's data of the round before were removed
seconds ago, and in a virtual machine the host may have taken their memory back since. The second pair takes memory that
was warmed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.bench import Bench
from benchmarks.rows import Row
from benchmarks.sample import Bar, Sample, paired, rate, times_as_fast
from stateroom import Client, Model
from tests.support.server import Server

SPARE = 1024 * 1024
CHANGED = slice(10, None, 20)
"""The changed storages: every twentieth."""

KINDS = "file, as it comes", "new, as it comes", "file, warmed", "new, warmed", "unchanged", "first", "second"


def rows(bench: Bench) -> Iterator[Row]:
    obj = torch.load(bench.general)
    tensors = [*obj["model_state_dict"].values(), *averages(obj)]
    size = sum(tensor.nbytes for tensor in tensors)
    changed = sum(tensor.nbytes for tensor in tensors[CHANGED])
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    target = bench.folder / "saved.pt"

    def to_file() -> None:
        torch.save(obj, target)

    for number in range(bench.rounds):
        for kind in ("as it comes", "warmed"):
            with bench.server() as server, Client(server.base_url, progress=False) as client:
                model = client.model("bench/saved")
                turns: dict[str, Callable[[], object]] = {"file": to_file, "new": partial(model.save, obj)}
                for name in turns if number % 2 else reversed(turns):
                    if kind == "warmed":
                        bench.warm_memory()
                    times[f"{name}, {kind}"].append(seconds(turns[name]))
                if kind == "warmed":
                    bench.warm_memory(1)
                    times["unchanged"].append(seconds(partial(model.save, obj)))
                    on_the_wire = _save_changed(server, model, obj, tensors)
                    for name in ("first", "second"):
                        bench.warm_memory(2)
                        tensors[-1].add_(1)
                        times[name].append(_held(model, obj))
            target.unlink()

    for kind, bar in (("as it comes", 1.0), ("warmed", 0.7)):
        file, new = times[f"file, {kind}"], times[f"new, {kind}"]
        what = f"save what is new, memory {kind}"
        yield Row("P4", what, rate(size, new), f"{rate(size, file)} torch.save", times_as_fast(new, file), Bar(bar))
    file, unchanged = times["file, warmed"], times["unchanged"]
    measured = times_as_fast(unchanged, file)
    yield Row("P4", "save what is unchanged", rate(size, unchanged), f"{rate(size, file)} torch.save", measured, Bar(8))
    yield Row(
        "P4",
        "save with every twentieth storage changed: bytes of bodies but 1 MiB",
        f"{on_the_wire:,} B",
        f"{changed:,} B changed",
        Sample(((on_the_wire - SPARE) / changed,), "less"),
        Bar(1.02),
    )
    for name, what, bar in (
        ("second", "save_async holds the training, second save", 0.05),
        ("first", "save_async holds the training, a client's first save", 0.3),
    ):
        figures = f"{median(times[name]) * 1000:.0f} ms", f"{median(file) * 1000:.0f} ms torch.save"
        yield Row("P5", what, *figures, paired(times[name], file, "less"), Bar(bar))


def _save_changed(server: Server, model: Model, obj: object, tensors: Sequence[torch.Tensor]) -> int:
    """Change every twentieth storage, save, and return the bytes of bodies that the server got."""
    for tensor in tensors[CHANGED]:
        tensor.add_(1)
    before = bytes_in(server)
    model.save(obj)
    return bytes_in(server) - before


def _held(model: Model, obj: object) -> float:
    """Seconds for which ``save_async`` holds its caller."""
    started = time.perf_counter()
    job = model.save_async(obj)
    held = time.perf_counter() - started
    job.result()
    return held


def averages(obj: Any) -> Iterator[torch.Tensor]:
    for state in obj["optimizer_state_dict"]["state"].values():
        yield from (state["exp_avg"], state["exp_avg_sq"])


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def bytes_in(server: Server) -> int:
    return sum(request["bytes_in"] for request in server.requests)
