"""How long after a click are the curves of a model with 10,000 checkpoints drawn, and how many bytes does that take?"""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from statistics import median

from playwright.sync_api import Browser

from benchmarks.bench import Bench
from benchmarks.many_checkpoints import MODEL, multiply, upload
from benchmarks.rows import Row, at_most
from tests.support.browser import browser_program, running_browser, visiting
from tests.support.server import PYTHON_M_APP, Server, start_server

CHECKPOINTS = 10_000
SECONDS, BYTES = 1.0, 200_000

ENTRIES = """() => ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
    .reduce((sum, entry) => sum + entry.transferSize, 0)"""


def rows(bench: Bench) -> Iterator[Row]:
    if browser_program() is None:
        yield Row("W1", "the page of a model", verdict="skipped", peer="no browser: apt-get install chromium")
        return
    data_dir = bench.folder / "pages" / "data"
    server = _server(data_dir, bench.folder / "one.pt")
    try:
        with running_browser() as browser:
            _, weight = _visit(browser, server, from_start=False)
            times = [_visit(browser, server, from_start=True)[0] for _ in range(bench.rounds)]
    finally:
        server.kill()
        rmtree(data_dir.parent)
    what = f"the page of a model with {CHECKPOINTS:,} checkpoints"
    time = median(times)
    yield Row("W1", f"{what}: click to curves", f"{time:.2f} s", "", "", f"< {SECONDS:g} s", at_most(SECONDS, time))
    bar = f"< {BYTES // 1000} kB"
    yield Row("W2", f"{what}: bytes", f"{weight / 1000:.0f} kB", "", "", bar, at_most(BYTES, weight))


def _server(data_dir: Path, one: Path) -> Server:
    env = {"STATEROOM_DURABLE": "off"}
    first = start_server(data_dir, env=env, command=PYTHON_M_APP)
    try:
        upload(first, one)
    finally:
        first.stop()
    multiply(f"sqlite:///{data_dir / 'catalog.sqlite3'}", CHECKPOINTS)
    return start_server(data_dir, env=env, command=PYTHON_M_APP)


def _visit(browser: Browser, server: Server, *, from_start: bool) -> tuple[float, int]:
    """Open the model's page in a fresh profile, ``from_start`` by a click on the start page: seconds from then to the
    curves, and bytes.
    """
    with visiting(browser, server.base_url) as visit:
        page = visit.go("/" if from_start else MODEL.removeprefix("/v1"))
        if from_start:
            page.locator("tbody th a").click()
        page.wait_for_selector('#charts[aria-busy="false"] canvas')
        milliseconds: float = page.evaluate("performance.getEntriesByName('curves')[0].startTime")
        return milliseconds / 1000, int(page.evaluate(ENTRIES))
