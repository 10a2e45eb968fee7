"""Measure the bytes and the time of an update by ``follow`` of which 2% have changed, and the pause of its swap."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import torch
from torch import nn

from benchmarks.bench import Bench
from benchmarks.rows import Row
from benchmarks.sample import Bar, Sample, milliseconds
from stateroom import Client, Model, Update

TENSORS = 100
CHANGED = ("w0", "w1")
SPARE = 256 * 1024


def rows(bench: Bench) -> Iterator[Row]:
    net = network(bench.size)
    with bench.server() as server, Client(server.base_url, progress=False) as client:
        model = client.model("bench/followed")
        model.save(net.state_dict(), rank_zero_only=False)
        model.alias("prod", 1)
        with (
            counted(server.port) as wire,
            Client(wire.url, progress=False) as behind,
            behind.model(model.name).follow(net, "prod", apply="manual") as following,
        ):
            next(following).apply()
            before = wire.count
            update, _, _ = followed(model, following, net)
            on_the_wire = wire.count - before
        with model.follow(net, "prod", apply="manual") as following:
            next(following).apply()
            timed = [followed(model, following, net) for _ in range(bench.rounds)]
    yield Row(
        "P14",
        f"follow, 2% of {bench.size / 1e9:.2f} GB changed: bytes on the wire but 256 KiB, requests included",
        f"{on_the_wire:,} B",
        f"{update.bytes:,} B changed",
        Sample(((on_the_wire - SPARE) / update.bytes,), "less"),
        Bar(1.02),
    )
    yield Row(
        "P14",
        "follow: from the alias's move to the checked update",
        measured=milliseconds([fetch for _, fetch, _ in timed]),
    )
    yield Row(
        "P14", "follow: the pause in which the update is put in", measured=milliseconds([swap for _, _, swap in timed])
    )


def network(size: int) -> nn.Module:
    net = nn.Module()
    for number in range(TENSORS):
        net.register_parameter(f"w{number}", nn.Parameter(torch.randn(size // TENSORS // 4), requires_grad=False))
    return net


def followed(model: Model, following: Iterator[Update], net: nn.Module) -> tuple[Update, float, float]:
    """Change 2% of the model, move the alias, and return the update, and the seconds of the fetch and of the swap."""
    state = {**net.state_dict(), **{key: net.state_dict()[key] + 1 for key in CHANGED}}
    version = model.save(state, rank_zero_only=False).version
    started = time.perf_counter()
    model.alias("prod", version)
    update = next(following)
    fetched = time.perf_counter()
    update.apply()
    applied = time.perf_counter()
    if update.changed != CHANGED or not all(torch.equal(net.state_dict()[key], state[key]) for key in state):
        raise AssertionError("the update is not what was saved")
    return update, fetched - started, applied - fetched


class Wire:
    """A relay that counts the bytes of both directions."""

    def __init__(self, port: int, listener: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.count = 0
        self._port = port
        self._lock = threading.Lock()

    def carry(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._port))
        back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
        back.start()
        self._pass_on(client, server)
        back.join()
        client.close()
        server.close()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 18):
                with self._lock:
                    self.count += len(data)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def counted(port: int) -> Iterator[Wire]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        wire = Wire(port, listener)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=wire.carry, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield wire
        listener.shutdown(socket.SHUT_RDWR)
