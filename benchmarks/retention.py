"""Time a pass of retention over a model of 10,000 checkpoints, and its preview."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

from app.catalog import Catalog, retention
from app.retention import Retention
from app.store import LocalPackStore
from app.values.checkpoint import ModelName
from app.values.retention import KeepBest, Rules
from benchmarks.bench import Bench
from benchmarks.large_catalog import enlarge, upload
from benchmarks.rows import Row
from benchmarks.sample import milliseconds
from tests.support.server import PYTHON_M_APP, start_server

MODEL = ModelName("bench", "many")
COUNT = 10_000
RULES = Rules(keep_last=3, keep_best=(KeepBest("max:acc", 2),), keep_every_epochs=1000)
KEEPS_ALL = Rules(keep_last=COUNT, keep_best=(KeepBest("max:acc", 2),))


def rows(bench: Bench) -> Iterator[Row]:
    data_dir = bench.folder / "retention" / "data"
    server = start_server(data_dir, env={"STATEROOM_DURABLE": "off"}, command=PYTHON_M_APP)
    try:
        upload(server, bench.folder / "one.pt")
    finally:
        server.stop()
    url = f"sqlite:///{data_dir / 'catalog.sqlite3'}"
    enlarge(url, COUNT)
    with closing(Catalog(url, durable=False)) as catalog:
        tidy = Retention(catalog, LocalPackStore(data_dir, durable=False), timedelta(days=7))
        yield _row(f"a preview over {COUNT:,} checkpoints", timed(lambda: tidy.preview(MODEL, RULES), bench.rounds))
        _set(catalog, KEEPS_ALL)
        what = f"a pass over {COUNT:,} checkpoints that removes none"
        yield _row(what, timed(lambda: tidy.everywhere(lambda: None), bench.rounds))
        one_run = f"after a commit to a run of {COUNT // 20:,} of them"
        passed = timed(lambda: retention.remove_unkept(catalog, MODEL, tidy.kept, lambda: None, "run-1"), bench.rounds)
        yield _row(one_run, passed)
        _set(catalog, RULES)
        done = []
        seconds = timed(lambda: done.append(tidy.everywhere(lambda: None)), 1)
        yield _row(f"a pass that removes {done[0].removed:,} of them", seconds)


def timed(call: Callable[[], object], rounds: int) -> list[float]:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def _set(catalog: Catalog, rules: Rules) -> None:
    with catalog.write() as w:
        retention.set_rules(w, MODEL, rules)


def _row(what: str, seconds: list[float]) -> Row:
    return Row("17", f"retention: {what}", measured=milliseconds(seconds))
