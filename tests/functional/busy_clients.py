"""Clients that save and load all the while and check what they get, for tests of outages."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile

from stateroom import Client, Model
from tests.differential.equality import equal
from tests.functional.on_s3 import noise
from tests.support.commands import run
from tests.support.measure import measure
from tests.support.server import Server
from tests.support.waiting import LONG_ENOUGH, assert_soon

PATIENCE = measure(LONG_ENOUGH, 600.0)
"""Seconds for which a client tries again: longer than any outage here."""


@dataclass(slots=True)
class BusyClients:
    """``rounds`` are the saves or loads of each client that have ended well."""

    rounds: dict[str, int] = field(default_factory=lambda: {"small": 0, "in-parts": 0, "load": 0})
    _is_over: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        """Wait until each client has ended another round."""
        before = dict(self.rounds)
        assert_soon(lambda: all(self.rounds[what] > before[what] for what in before))

    def end(self) -> None:
        self._is_over.set()

    def work(self, url: str, what: str, once: Callable[[Model], None]) -> None:
        with Client(url, progress=False, retry_seconds=PATIENCE) as client:
            while not self._is_over.is_set():
                once(client.model(f"busy/{what}"))
                self.rounds[what] += 1

    def check(self, server: Server, heard: list[int]) -> None:
        """Check that each save that was acknowledged is there, once, and that the reader of events has heard of it."""
        assert heard == list(range(1, self.rounds["small"] + 1))
        with server.client() as http:
            for what in ("small", "in-parts"):
                answer = http.get(f"/v1/models/busy/{what}/checkpoints", params={"limit": 1000})
                assert [each["version"] for each in answer.json()["items"]] == list(range(self.rounds[what], 0, -1))


@contextmanager
def busy_clients(server: Server) -> Iterator[BusyClients]:
    """Run the clients until the block ends, and raise what failed in any of them. Each has ended a round before."""
    clients = BusyClients()
    known = {"epoch": 1, "weight": noise(20)}
    with Client(server.base_url, progress=False, retry_seconds=PATIENCE) as client:
        client.model("busy/load").save(known)

    def save(mebibytes: float) -> Callable[[Model], None]:
        def once(model: Model) -> None:
            obj = {"epoch": 1, "weight": noise(mebibytes)}
            assert equal(model.load(model.save(obj)), obj)

        return once

    def load(model: Model) -> None:
        assert equal(model.load("latest"), known)

    def hear() -> list[int]:
        with Client(server.base_url, progress=False, retry_seconds=PATIENCE) as client:
            told = client.model("busy/small").events(follow=True)
            created = takewhile(lambda event: event.kind == "checkpoint-created", told)
            return [event.version for event in created if event.version is not None]

    work = {"small": save(0.1), "in-parts": save(20), "load": load}
    with ThreadPoolExecutor(len(work) + 1) as pool:
        working = [pool.submit(clients.work, server.base_url, *each) for each in work.items()]
        try:
            clients.go_on()
            hearing = pool.submit(hear)
            yield clients
        finally:
            clients.end()
            for each in working:
                each.result()
            with Client(server.base_url, retry_seconds=PATIENCE) as client:
                client.model("busy/small").alias("last", 1)  # ends the reader of events
        clients.check(server, hearing.result())


def findings(server: Server, env: Mapping[str, str] | None = None) -> list[object]:
    """Return what fsck finds after it has read every byte."""
    words = ("fsck", "--read-data", "--json", "--data-dir", str(server.data_dir), *server.args)
    done = run(*words, **(env or {}))
    assert done.stdout, done.stderr
    return json.loads(done.stdout)["findings"]
