"""Writers, deleters and downloaders at once, while sweeps without a grace run one after another."""

import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.catalog import Catalog
from app.store import LocalPackStore
from app.upkeep.fsck import Fsck
from tests.functional.torch_files import loaded, same
from tests.stress.files import Files
from tests.stress.told import Wrong
from tests.support.commands import run as command
from tests.support.server import Server, start_server
from tests.support.waiting import assert_soon

THREADS = 6
LIVE = 50
"""Checkpoints that are kept at a time, more or less."""

MODELS = ("vision/a", "vision/b", "text/c")
CLEAN = {404, 500, 503}
"""What a download of a checkpoint that is being deleted may be answered with."""


@dataclass(slots=True, eq=False)
class Entry:
    url: str
    data: bytes
    deleting: bool = False


@dataclass(slots=True)
class Mixed:
    """One run. ``counts`` is what happened, by name."""

    servers: list[Server]
    operations: int
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    entries: list[Entry] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        files = Files(self.seed)
        threads = [threading.Thread(target=self._work, args=(number, files)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def _work(self, number: int, files: Files) -> None:
        rng = random.Random(f"{self.seed} {number}")
        try:
            with self.servers[number % len(self.servers)].client() as http:
                while self._another():
                    self._operation(rng, files)(http)
        except BaseException as error:  # noqa: BLE001 - told by run, in its own thread
            self.failures.append(error)

    def _another(self) -> bool:
        with self.lock:
            if self.operations == 0 or self.failures:
                return False
            self.operations -= 1
            return True

    def _operation(self, rng: random.Random, files: Files) -> Callable[[httpx.Client], None]:
        with self.lock:
            live = [entry for entry in self.entries if not entry.deleting]
            entry = rng.choice(live) if live else None
            kind = rng.choices(("put", "delete", "get"), (30, 30 * len(live) / LIVE, 45))[0]
            if entry is None or kind == "put":
                return lambda http: self._put(http, files.make(rng, large=0.01, many=0.01), rng.choice(MODELS))
            if kind == "delete":
                entry.deleting = True
                return lambda http: self._delete(http, entry)
        way = rng.choice((self._whole, self._range, self._state_dict, self._listed))
        return lambda http: way(http, entry, rng)

    def _put(self, http: httpx.Client, data: bytes, model: str) -> None:
        answer = http.post(f"/v1/models/{model}/checkpoints", content=data)
        if answer.status_code != 201:
            raise Wrong(f"an upload was answered with {answer.status_code}: {answer.text}")
        with self.lock:
            self.entries.append(Entry(answer.json()["urls"]["self"], data))
            self.counts["uploads"] += 1

    def _delete(self, http: httpx.Client, entry: Entry) -> None:
        answer = http.delete(entry.url)
        if answer.status_code != 204:
            raise Wrong(f"a deletion was answered with {answer.status_code}: {answer.text}")
        with self.lock:
            self.entries.remove(entry)
            self.counts["deletions"] += 1
        if (answer := http.get(entry.url)).status_code != 404:
            raise Wrong(f"a deleted checkpoint was answered with {answer.status_code}")

    def _get(self, http: httpx.Client, entry: Entry, path: str, headers: dict[str, str] | None = None) -> bytes | None:
        """The body, if it is whole."""
        try:
            answer = http.get(entry.url + path, headers=headers)
        except (httpx.RemoteProtocolError, httpx.ReadError) as error:
            return self._excused(entry, f"was cut: {error}")
        if answer.is_success:
            with self.lock:
                self.counts["downloads verified"] += 1
            return answer.content
        if answer.status_code not in CLEAN:
            raise Wrong(f"{entry.url}{path} was answered with {answer.status_code}: {answer.text}")
        return self._excused(entry, f"was answered with {answer.status_code}: {answer.text}")

    def _excused(self, entry: Entry, how: str) -> None:
        if not entry.deleting:
            raise Wrong(f"a download of {entry.url}, which nobody deletes, {how}")
        with self.lock:
            self.counts["downloads of deleted checkpoints that ended clean"] += 1

    def _whole(self, http: httpx.Client, entry: Entry, _: random.Random) -> None:
        data = self._get(http, entry, "/original")
        if data is not None and data != entry.data:
            raise Wrong(f"wrong bytes in {entry.url}")

    def _range(self, http: httpx.Client, entry: Entry, rng: random.Random) -> None:
        start, end = sorted(rng.sample(range(len(entry.data) + 1), 2))
        data = self._get(http, entry, "/original", {"Range": f"bytes={start}-{end - 1}"})
        if data is not None and data != entry.data[start:end]:
            raise Wrong(f"wrong bytes in {entry.url}, {start} to {end}")

    def _state_dict(self, http: httpx.Client, entry: Entry, _: random.Random) -> None:
        data = self._get(http, entry, "/state_dict?exclude=shared.1")
        if data is not None:
            wanted = loaded(entry.data)["model_state_dict"]
            wanted.pop("shared.1", None)
            if not same(dict(loaded(data)), wanted):
                raise Wrong(f"wrong tensors in {entry.url}")

    def _listed(self, http: httpx.Client, entry: Entry, _: random.Random) -> None:
        model = entry.url.rpartition("/")[0]
        answer = http.get(model, params={"limit": 1000})
        if answer.status_code != 200:
            raise Wrong(f"a listing was answered with {answer.status_code}: {answer.text}")
        if entry.url not in {item["urls"]["self"] for item in answer.json()["items"]} and not entry.deleting:
            raise Wrong(f"{entry.url} is not listed")
        with self.lock:
            self.counts["listings"] += 1


def run(
    folder: Path, operations: int, database_url: str | None = None, *, servers: int = 1, seed: int = 0
) -> Counter[str]:
    """All of it, in ``folder``, on ``servers`` that share a catalog and a store; raises Wrong, or AssertionError at the
    end.
    """
    store, data_dirs = folder / "store", [folder / f"data{number}" for number in range(servers)]
    url = database_url or f"sqlite:///{folder / 'catalog.sqlite3'}"
    shared = ("--database-url", url, "--store-url", f"file://{store}", "--grace", "0")
    options = (*shared, "--workers", "2", "--sweep-interval", "0.1")
    with ExitStack() as stack:
        running = []
        for data_dir in data_dirs:
            server = start_server(data_dir, *options, "--trash", "1s", env={"STATEROOM_DURABLE": "off"})
            stack.callback(server.kill)
            running.append(server)
        mixed = Mixed(running, operations, seed)
        began = time.monotonic()
        mixed.run()
        mixed.counts["seconds"] = round(time.monotonic() - began)
        assert_soon(lambda: any(line["packs"] for line in _sweeps(running)))  # what was deleted is in the trash for 1 s
        finish(mixed, url, store, [("--data-dir", str(data_dir), *shared) for data_dir in data_dirs])
        lines = [line for server in running for line in server.lines]
    assert [line for line in lines if line["level"] != "info"] == []
    sweeps = _sweeps(running)
    mixed.counts["sweeps"] = len(sweeps)
    mixed.counts["packs swept"] = sum(line["packs"] for line in sweeps)
    mixed.counts["packs compacted"] = sum(line["compacted_packs"] for line in sweeps)
    mixed.counts["MiB freed"] = sum(line["freed_bytes"] for line in sweeps) >> 20
    return mixed.counts


def _sweeps(servers: list[Server]) -> list[dict]:
    return [line for server in servers for line in server.lines if line["logger"] == "stateroom.sweep"]


def finish(mixed: Mixed, url: str, store_folder: Path, commands: list[tuple[str, ...]]) -> None:
    """What is left is all there, and nothing else is; when that has gone too, nothing is."""
    with closing(Catalog(url)) as catalog, mixed.servers[0].client() as http:
        store = LocalPackStore(store_folder, durable=False)
        assert list(Fsck(catalog, store, read_data=True).findings()) == []
        for entry in mixed.entries:
            assert http.get(entry.url + "/original").content == entry.data
            mixed.counts["left and verified"] += 1
        for entry in list(mixed.entries):
            mixed._delete(http, entry)
        for options in commands:
            done = command("sweep", "--empty-trash", *options)
            assert done.returncode == 0, done.stderr
        assert list(Fsck(catalog, store, read_data=True).findings()) == []
        assert files_in(store_folder) == []
        for server in mixed.servers:
            assert files_in(server.data_dir / "spool") == []
        for table in ("blobs", "packs", "checkpoint_blobs", "checkpoints", "checksums"):
            with catalog.read() as s:
                assert s._connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0, table


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def rows(catalog: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(catalog)) as opened:
        return opened.execute(query).fetchall()
