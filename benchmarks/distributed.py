"""Compare ``dcp.save`` and ``dcp.load`` of sharded tensors with a server and with a folder on the local disk.

Two processes save, and three load what two have saved. All are on this machine, beside the server.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.multiprocessing.spawn import start_processes

from benchmarks.bench import Bench
from benchmarks.rows import Row
from benchmarks.sample import rate, times_as_fast
from stateroom import Client
from stateroom.integrations.dcp import StateroomReader, StateroomWriter

SAVING, LOADING = 2, 3
TENSORS, WIDTH = 40, 1_024

Times = dict[str, list[float]]
Work = Callable[[Path, str, int, int], Times]


def rows(bench: Bench) -> Iterator[Row]:
    with bench.server() as server:
        saved = _run(SAVING, _save, bench, server.base_url)
        loaded = _run(LOADING, _load, bench, server.base_url)
    size = TENSORS * _rows_of(bench.size) * WIDTH * 4
    for what, name, times in (
        (f"save by {SAVING} processes, what is new", "new", saved),
        (f"save by {SAVING} processes, what is unchanged", "unchanged", saved),
        (f"load by {LOADING} processes what {SAVING} saved", "server", loaded),
    ):
        ours, file = times[name], times["file"]
        yield Row("DCP", what, rate(size, ours), f"{rate(size, file)} FileSystem", times_as_fast(ours, file))


def _rows_of(size: int) -> int:
    return max(LOADING, size // (TENSORS * WIDTH * 4))


def _run(ranks: int, work: Work, bench: Bench, url: str) -> Times:
    """Do the work in so many processes, and return the times of the first."""
    store, answer = bench.folder / f"store-{ranks}", bench.folder / "times.json"
    arguments = (ranks, store, work, bench.folder, url, bench.size, bench.rounds, answer)
    start_processes(_begin, arguments, nprocs=ranks, start_method="spawn")  # type: ignore[no-untyped-call]  # torch's
    times: Times = json.loads(answer.read_text())
    for path in (store, answer):
        path.unlink(missing_ok=True)  # the last process removes the store
    return times


def _begin(
    rank: int, ranks: int, store: Path, work: Work, folder: Path, url: str, size: int, rounds: int, answer: Path
) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    try:
        times = work(folder, url, size, rounds)
        if rank == 0:
            answer.write_text(json.dumps(times))
    finally:
        dist.destroy_process_group()


def _save(folder: Path, url: str, size: int, rounds: int) -> Times:
    state = _state(size)
    times: Times = {"file": [], "new": [], "unchanged": []}
    with Client(url, progress=False) as client:
        model = client.model("bench/sharded")
        for number in range(rounds):
            for each in state.values():
                each.to_local().add_(1)

            def to_server() -> None:
                save(state, storage_writer=StateroomWriter(model))

            def to_file(path: Path = folder / f"sharded-{number}") -> None:
                save(state, storage_writer=FileSystemWriter(path, sync_files=False))

            turns = [("new", to_server), ("file", to_file)]
            for name, call in turns if number % 2 else turns[::-1]:
                times[name].append(_seconds(call))
            times["unchanged"].append(_seconds(to_server))
            if dist.get_rank() == 0 and number < rounds - 1:
                shutil.rmtree(folder / f"sharded-{number}")
    return times


def _load(folder: Path, url: str, size: int, rounds: int) -> Times:
    state = _state(size)
    path = folder / f"sharded-{rounds - 1}"
    times: Times = {"file": [], "server": []}
    with Client(url, progress=False) as client:
        model = client.model("bench/sharded")

        def from_server() -> None:
            load(state, storage_reader=StateroomReader(model))

        def from_file() -> None:
            load(state, storage_reader=FileSystemReader(path))

        turns = [("server", from_server), ("file", from_file)]
        for number in range(rounds):
            for name, call in turns if number % 2 else turns[::-1]:
                times[name].append(_seconds(call))
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(path)
    return times


def _state(size: int) -> dict[str, DTensor]:
    """Random tensors of ``size`` bytes in all, whose rows are spread over all processes."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    generator = torch.Generator().manual_seed(0)
    shape = (_rows_of(size), WIDTH)
    return {
        f"layers.{number}.weight": distribute_tensor(torch.randn(shape, generator=generator), mesh, [Shard(0)])
        for number in range(TENSORS)
    }


def _seconds(call: Callable[[], None]) -> float:
    """The time that a call takes until all processes have done it."""
    dist.barrier()
    started = time.perf_counter()
    call()
    dist.barrier()
    return time.perf_counter() - started
