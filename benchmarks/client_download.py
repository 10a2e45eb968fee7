"""Measure how fast the client loads a checkpoint into fresh memory (P1) and into a model's own memory (P2)."""

import http.client
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn

from benchmarks.bench import Bench
from benchmarks.peers import PEERS
from benchmarks.raw import raw_download, raw_peer
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, rate, times_as_fast
from benchmarks.wire import touched
from stateroom import Client

CONNECTIONS = 4
WARMED = 3
"""Checkpoints whose bytes are warmed: a load by way of a file fills memory with two."""
SLICE = 1 << 20
NGINX, MLFLOW = PEERS


def rows(bench: Bench) -> Iterator[Row]:
    yield from fresh_memory(bench)
    yield from own_memory(bench)


def fresh_memory(bench: Bench) -> Iterator[Row]:
    """Compare with parallel ranges from nginx into one buffer (not yet a checkpoint), torch.hub and MLflow."""
    size = bench.general.stat().st_size
    seconds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        model = Client(stack.enter_context(bench.server(bench.general)).base_url).model("bench/general")
        ways: dict[str, Callable[[], object]] = {"client": lambda: model.load(1)}
        for peer in (NGINX, MLFLOW):
            if not bench.has(peer):
                continue
            folder = bench.folder / f"{peer.program}-download"
            url = stack.enter_context(peer.running(folder)) + peer.path
            shutil.copyfile(bench.general, folder / "files" / "general.tar")
            file = folder / "got.tar"
            if peer is NGINX:
                ways["ranges"] = partial(parallel_ranges, url, size)
                ways["hub"] = partial(hub, url, folder)
            else:
                ways["mlflow"] = partial(into_file_then_load, url, file)
        for turn in range(bench.rounds):
            for name, way in ways.items():
                if name == MLFLOW.program and turn >= bench.slow_turns:
                    continue
                bench.warm_memory(WARMED)
                seconds.setdefault(name, []).append(timed(way))
    for name, text, bar in (
        ("ranges", f"{CONNECTIONS} parallel nginx ranges into one buffer", 1.0),
        ("hub", "torch.hub from nginx", 2.0),
        ("mlflow", "MLflow and torch.load", 5.0),
    ):
        what = f"client.load of the whole, verified, fresh memory, beside {text}"
        if name in seconds:
            ours, theirs = seconds["client"], seconds[name]
            measured = times_as_fast(ours[: len(theirs)], theirs)
            yield Row("P1", what, rate(size, ours), rate(size, theirs), measured, Bar(bar))
        else:
            yield skipped("P1", what, f"{'MLflow' if name == 'mlflow' else 'nginx'} is not installed")


def own_memory(bench: Bench) -> Iterator[Row]:
    """Load into a model with the general checkpoint's tensors, which costs only the network and no page faults."""
    net = model_like(torch.load(bench.general, mmap=True))
    file = bench.folder / "net.pt"
    torch.save(net.state_dict(), file)
    size = file.stat().st_size
    memory = touched(size)
    seconds: dict[str, list[float]] = {"load_into": [], "warmstart": []}
    limit: list[float] = []
    with bench.server(file) as server, raw_peer("send", file) as port:
        model = Client(server.base_url).model("bench/general")
        ways = {"load_into": lambda: model.load_into(net, 1), "warmstart": lambda: model.warmstart(net, 1)}
        for _ in range(bench.rounds):
            bench.warm_memory(1)
            limit.append(raw_download(port, memory))
            for name, way in ways.items():
                bench.warm_memory(1)
                seconds[name].append(timed(way))
    file.unlink()
    for name, ours in seconds.items():
        yield Row(
            "P2",
            f"client.{name}, verified, into a model's own memory",
            rate(size, ours),
            f"{rate(size, limit)} raw sendfile, touched memory",
            times_as_fast(ours, limit),
            Bar(0.75),
        )


def timed(work: Callable[[], object]) -> float:
    """Seconds until the result exists, without the time to free it."""
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    del result
    return seconds


def model_like(checkpoint: Mapping[str, Any]) -> nn.Module:
    """A model with a parameter for each tensor of a general checkpoint, all in its own memory."""
    states = checkpoint["optimizer_state_dict"]["state"].values()
    tensors = [*checkpoint["model_state_dict"].values()]
    tensors += [state[name] for state in states for name in ("exp_avg", "exp_avg_sq")]
    return nn.ParameterList([nn.Parameter(tensor.clone()) for tensor in tensors])


def parallel_ranges(url: str, size: int) -> memoryview:
    memory = memoryview(torch.empty(size, dtype=torch.uint8).numpy().data)

    def fetch(number: int) -> None:
        start, end = size * number // CONNECTIONS, size * (number + 1) // CONNECTIONS
        address = urlsplit(url)
        wire = http.client.HTTPConnection(address.hostname or "", address.port)
        wire.request("GET", address.path, headers={"Range": f"bytes={start}-{end - 1}"})
        answer = wire.getresponse()
        while start < end:
            start += answer.readinto(memory[start : min(end, start + SLICE)])
        wire.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(fetch, range(CONNECTIONS)))
    return memory


def hub(url: str, folder: Path) -> object:
    """Load with torch.hub and an empty cache."""
    (folder / "hub" / "general.tar").unlink(missing_ok=True)
    return torch.hub.load_state_dict_from_url(url, str(folder / "hub"), progress=False, weights_only=True)


def into_file_then_load(url: str, file: Path) -> object:
    """Load an artifact as MLflow's own client does: into a file first, in pieces of 1 MiB."""
    address = urlsplit(url)
    wire = http.client.HTTPConnection(address.hostname or "", address.port)
    wire.request("GET", address.path)
    answer = wire.getresponse()
    with file.open("wb") as target:
        while data := answer.read(SLICE):
            target.write(data)
    wire.close()
    loaded = torch.load(file, weights_only=True)
    file.unlink()
    return loaded
