"""A server and its workers killed at any moment, again and again: during uploads, deletions, sweeps, compaction, alias
moves and deliveries to a webhook.
"""

import random
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.catalog import Catalog
from app.store import LocalPackStore
from app.upkeep.fsck import Fsck
from tests.stress.files import Files
from tests.stress.mixed import files_in, rows
from tests.stress.told import Told, Wrong
from tests.support.commands import run as command
from tests.support.receiver import Receiver
from tests.support.server import Server, start_server
from tests.support.waiting import until_ready

THREADS = 4
LIVE = 20
MODEL_NAME = "vision/resnet"
MODEL = f"/v1/models/{MODEL_NAME}/checkpoints"
READY_WITHIN = 10.0

IN_A_SWEEP = "SELECT 1 FROM leases WHERE name = 'sweep'"
IN_AN_UPLOAD = "SELECT 1 FROM packs WHERE state = 'writing' AND lease_until > 0"
IN_A_BATCHED_COMMIT = "SELECT 1 FROM packs WHERE state = 'sealed' AND lease_until > 0"
BETWEEN_ROWS_AND_BYTES = "SELECT 1 FROM packs WHERE state = 'writing' AND lease_until = 0"


@dataclass(slots=True, eq=False)
class Sent:
    """An upload and what its client knows of it: ``uploading``, ``live``, ``refused``, ``deleting``, ``restoring`` or
    ``gone``. ``pinned`` is None while a change of its pin is in flight.
    """

    number: int
    data: bytes
    state: str = "uploading"
    url: str = ""
    pinned: bool | None = False


@dataclass(slots=True)
class Kills:
    """One run; ``counts`` is what happened, by name."""

    data_dir: Path
    rng: random.Random
    ready_within: float
    told: Told
    counts: Counter[str] = field(default_factory=Counter)
    sent: dict[int, Sent] = field(default_factory=dict)
    failures: list[BaseException] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    files: Files = field(default_factory=lambda: Files(7))
    starts: list[float] = field(default_factory=list)

    def start(self) -> Server:
        began = time.monotonic()
        options = ("--workers", "2", "--grace", "0", "--sweep-interval", "0.05", "--trash", "1s")
        server = start_server(self.data_dir, *options, env={"STATEROOM_WEBHOOK_PRIVATE": "on"})
        with server.client() as http:
            until_ready(http)
        seconds = time.monotonic() - began
        self.starts.append(seconds)
        if seconds > self.ready_within:
            raise Wrong(f"it took {seconds:.1f} s to be ready again")
        return server

    def round(self, server: Server, seconds: float) -> None:
        """Work until the server is killed, ``seconds`` from now."""
        threads = [
            threading.Thread(target=self._work, args=(server, random.Random(self.rng.random()))) for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds)  # the kill falls into whatever is going on then
        server.kill()
        for thread in threads:
            thread.join()
        self.counts["kills"] += 1
        if self.failures:
            raise self.failures[0]
        for name, query in (
            ("kills in a sweep", IN_A_SWEEP),
            ("kills in an upload", IN_AN_UPLOAD),
            ("kills in a commit of several batches, or in moves", IN_A_BATCHED_COMMIT),
            ("kills between rows and bytes", BETWEEN_ROWS_AND_BYTES),
        ):
            self.counts[name] += bool(rows(self.data_dir / "catalog.sqlite3", query))
        self.counts["kills with half a pack"] += any(self.data_dir.rglob("*.part"))
        self.counts["kills with a spooled upload"] += any((self.data_dir / "spool").iterdir())

    def _work(self, server: Server, rng: random.Random) -> None:
        try:
            with server.client() as http:
                while True:
                    self._operation(http, rng)
        except httpx.TransportError:
            pass  # it was killed; what was in flight may have happened or not
        except BaseException as error:  # noqa: BLE001 - told by round, in its own thread
            self.failures.append(error)

    def _operation(self, http: httpx.Client, rng: random.Random) -> None:
        with self.lock:
            live = [one for one in self.sent.values() if one.state == "live"]
            weights = {"put": 40, "refused": 4, "delete": 40 * len(live) / LIVE, "get": 20, "pin": 8, "move": 10}
            kind = rng.choices(list(weights), list(weights.values()))[0]
            if kind == "delete":
                live = [one for one in live if one.pinned is False]
            elif kind == "pin":
                live = [one for one in live if one.pinned is not None]
            if not live and kind not in {"refused", "move"}:
                kind = "put"
            if kind == "move":
                pass
            elif kind in {"put", "refused"}:
                one = Sent(len(self.sent), b"")
                self.sent[one.number] = one
            else:
                one = rng.choice(live)
                if kind == "delete":
                    one.state = "deleting"
                elif kind == "pin":
                    pinning, one.pinned = one.pinned is False, None
        if kind == "put":
            one.data = self.files.make(rng, large=0.01, many=0.05)
            answer = http.post(MODEL, content=one.data, params={"tag.number": one.number})
            if answer.status_code != 201:
                raise Wrong(f"an upload was answered with {answer.status_code}: {answer.text}")
            one.url, one.state = answer.json()["urls"]["self"], "live"
            self._count("uploads acknowledged")
        elif kind == "refused":
            one.state = "refused"
            one.data = self.files.make(rng)[: -rng.randint(1, 3000)]
            if (answer := http.post(MODEL, content=one.data, params={"tag.number": one.number})).status_code != 422:
                raise Wrong(f"half a file was answered with {answer.status_code}")
            self._count("uploads refused")
        elif kind == "delete":
            if (answer := http.delete(one.url)).status_code != 204:
                raise Wrong(f"a deletion was answered with {answer.status_code}: {answer.text}")
            self._count("deletions acknowledged")
            one.state = "gone" if rng.random() < 0.6 else self._restored(http, one)
        elif kind == "move":
            if self.told.move(http, rng):
                self._count("moves of an alias acknowledged")
        elif kind == "pin":
            url = one.url + "/pin"
            answer = http.put(url, json={"reason": "kept"}) if pinning else http.delete(url)
            if not answer.is_success:
                raise Wrong(f"a pin was answered with {answer.status_code}: {answer.text}")
            one.pinned = pinning
            self._count("pins acknowledged")
        else:
            answer = http.get(one.url + "/original")
            if answer.status_code == 200 and answer.content != one.data:
                raise Wrong(f"wrong bytes in {one.url}")
            if answer.status_code != 200 and one.state == "live":
                raise Wrong(f"{one.url} was answered with {answer.status_code}: {answer.text}")
            self._count("downloads verified")

    def _restored(self, http: httpx.Client, one: Sent) -> str:
        """Restore what was just deleted; the state that it has then."""
        one.state = "restoring"
        answer = http.post(one.url + "/restore")
        if answer.status_code not in {200, 410}:
            raise Wrong(f"a restoration was answered with {answer.status_code}: {answer.text}")
        self._count("restorations acknowledged" if answer.is_success else "restorations that came too late")
        return "live" if answer.is_success else "gone"

    def _count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def verify(self, server: Server, *, read_data: bool) -> None:
        """What was acknowledged is there, what was not is whole or not there; beside a server that sweeps."""
        with server.client() as http:
            items = http.get(MODEL, params={"limit": 1000})
            there = {int(item["tags"]["number"]): item for item in listed(items)}
            found = {number: item["urls"]["self"] for number, item in there.items()}
            for number, url in found.items():
                one = self.sent[number]
                if one.state in {"gone", "refused"}:
                    raise Wrong(f"{url} is {one.state}, and is there")
                if one.state == "live" and one.url != url:
                    raise Wrong(f"{one.url} is {url} now")
                is_pinned = there[number]["pin"] is not None
                if one.pinned not in {None, is_pinned}:
                    raise Wrong(f"{url}: pinned is {is_pinned}, and {one.pinned} was acknowledged")
                one.pinned = is_pinned
                if one.state == "uploading":
                    self.counts["uploads in flight that are there"] += 1
                one.state, one.url = "live", url
                if (answer := http.get(url + "/original")).content != one.data:
                    raise Wrong(f"{url} is not what was uploaded: {answer.status_code}")
                self.counts["checkpoints verified after a kill"] += 1
            for one in self.sent.values():
                if one.number not in found:
                    if one.state == "live":
                        raise Wrong(f"{one.url} was acknowledged, and is lost")
                    if one.state == "uploading":
                        self.counts["uploads in flight that are not there"] += 1
                    one.state, one.data = "gone" if one.state != "refused" else "refused", b""
            self.told.verify(http, MODEL_NAME, {item["version"] for item in there.values()})
        self.check(read_data=read_data)

    def check(self, *, read_data: bool) -> None:
        with closing(Catalog(f"sqlite:///{self.data_dir / 'catalog.sqlite3'}")) as catalog:
            found = list(Fsck(catalog, LocalPackStore(self.data_dir, durable=False), read_data).findings())
        if found:
            raise Wrong(f"fsck found {found}")
        self.counts["fscks without a finding"] += 1


def listed(answer: httpx.Response) -> list[dict]:
    if answer.status_code == 404:  # no upload has ended yet
        return []
    assert answer.status_code == 200, answer.text
    assert answer.json()["next"] is None
    return answer.json()["items"]


def run(folder: Path, kills: int, seed: int = 0, ready_within: float = READY_WITHIN) -> Counter[str]:
    """All of it, in ``folder``; raises Wrong, or AssertionError at the end."""
    receiver = Receiver(folder / "deliveries")
    test = Kills(folder / "data", random.Random(seed), ready_within, Told(receiver))
    began = time.monotonic()
    server = test.start()
    try:
        receiver.start()
        with server.client() as http:
            test.told.begin(http, test.files.make(test.rng))
        for number in range(kills):
            test.round(server, test.rng.uniform(0.02, 1.0))
            server = test.start()
            test.verify(server, read_data=number % 10 == 0)
        test.check(read_data=True)
        with server.client() as http:
            test.counts["deliveries to a webhook"] = test.told.end(http)
            for one in test.sent.values():
                if one.state == "live":
                    assert http.delete(one.url + "/pin").status_code == 204
                    assert http.delete(one.url).status_code == 204
        done = command("sweep", "--empty-trash", "--grace", "0", "--data-dir", str(test.data_dir))
        assert done.returncode == 0, done.stderr
        test.check(read_data=True)
        assert files_in(test.data_dir / "packs") == files_in(test.data_dir / "spool") == []
        for table in ("blobs", "packs", "checkpoint_blobs", "checkpoints"):
            assert rows(test.data_dir / "catalog.sqlite3", f"SELECT count(*) FROM {table}") == [(0,)], table
    finally:
        server.kill()
        receiver.kill()
    test.counts["seconds"] = round(time.monotonic() - began)
    first, *again = test.starts
    test.counts["ms to be ready on an empty folder"] = round(first * 1000)
    test.counts["ms to be ready again, median"] = round(sorted(again)[len(again) // 2] * 1000)
    test.counts["ms to be ready again, slowest"] = round(max(again) * 1000)
    return test.counts
