"""The setting of every script: a folder, sizes, checkpoints, and servers to send them to."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from types import MappingProxyType

from benchmarks.checkpoints import write_general, write_many
from benchmarks.memory import warm
from benchmarks.peers import Peer
from benchmarks.wire import Connection
from tests.support.server import PYTHON_M_APP, Server, start_server

MODEL = "/v1/models/bench/general"
MANY = 10_000
WARMED = 4
"""Checkpoints whose bytes are warmed where nothing else is said: those of a save are in the client, the page cache, and
the spool."""

SLOW_TURNS = 3
"""Turns of what takes many times as long as the others, or differs by a hundredth from turn to turn."""


@dataclass
class Bench:
    """The setting of a run. ``size`` is the approximate size of the general checkpoint, ``big`` that of the
    checkpoint for measuring memory, in bytes. Everything is timed ``rounds`` times.
    """

    folder: Path
    size: int
    big: int
    rounds: int
    with_peers: bool = True
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds that went into the setting, and not into what is measured."""

    @property
    def slow_turns(self) -> int:
        """The turns of a slow contestant, which are the first ones."""
        return min(self.rounds, SLOW_TURNS)

    def has(self, peer: Peer) -> bool:
        """Tell whether ``peer`` takes part."""
        return self.with_peers and peer.installed

    @cached_property
    def general(self) -> Path:
        """A general checkpoint of 147 tensors."""
        path = self.folder / "general.tar"
        write_general(path, self.size)
        return path

    @cached_property
    def many(self) -> Path:
        """A state_dict of 10,000 tensors."""
        path = self.folder / "many.pt"
        write_many(path, MANY)
        return path

    @contextmanager
    def server(
        self, *uploads: Path, options: Sequence[str] = (), env: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[Server]:
        """A fresh server that holds only ``uploads``: versions 1, 2, ... of one model."""
        data_dir = self.folder / "server" / "data"
        with self.spending("starting servers"):
            running = start_server(data_dir, *options, env={"STATEROOM_DURABLE": "off", **env}, command=PYTHON_M_APP)
        try:
            with Connection(running.base_url) as connection:
                for upload in uploads:
                    connection.put(f"{MODEL}/checkpoints", upload)
            yield running
        finally:
            running.kill()
            rmtree(data_dir.parent)

    @contextmanager
    def spending(self, on: str) -> Iterator[None]:
        """Count the seconds of the block as spent on the setting."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent[on] += time.monotonic() - began

    def warm_memory(self, checkpoints: float = WARMED) -> None:
        """Touch and free more memory than a turn takes. Call it before every turn of every contestant. ``checkpoints``
        is how many times the size of the general one that is; one is enough for a turn that fills touched memory.

        In a virtual machine, memory freed a moment ago is many times faster to fill than memory that the host has taken
        back meanwhile. Without this, whoever comes first after a pause pays for the others.
        """
        with self.spending("warming"):
            warm(int(checkpoints * self.size))
