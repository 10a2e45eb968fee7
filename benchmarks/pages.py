"""How soon after a click are curves of 10,000 checkpoints there, or a tree of 10,000 keys, and in how many bytes?"""

import io
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from statistics import median

import torch
from playwright.sync_api import Browser

from benchmarks.bench import Bench
from benchmarks.large_catalog import MODEL, enlarge, upload
from benchmarks.rows import Row, skipped
from benchmarks.sample import Bar, Sample
from tests.support.browser import browser_program, running_browser, visiting
from tests.support.server import PYTHON_M_APP, Server, start_server

CHECKPOINTS = KEYS = 10_000
LAYER = 125
FRAME = 20
"""Milliseconds. A browser draws one in 16.7 ms, so a longer median means that frames are missed."""
SECONDS, BYTES = 1.0, 200_000

ENTRIES = """() => ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
    .reduce((sum, entry) => sum + entry.transferSize, 0)"""

FRAMES = """async () => {
    const grid = document.getElementById("grid");
    const times = [];
    for (let frame = 0; frame < 200; frame += 1) {
        grid.scrollTop += 120;
        const start = performance.now();
        await new Promise((resolve) => requestAnimationFrame(resolve));
        times.push(performance.now() - start);
    }
    return times;
}"""
"""Turns a wheel by a notch a frame."""


def rows(bench: Bench) -> Iterator[Row]:
    if browser_program() is None:
        yield skipped("W1", "the page of a model", "no browser: apt-get install chromium")
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
    took = Sample(tuple(times), "less", "s")
    yield Row("W1", f"{what}: click to curves", measured=took, bar=Bar(SECONDS))
    yield Row("W2", f"{what}: bytes", measured=Sample((weight,), "less", "B"), bar=Bar(BYTES))

    yield from _tensor_rows(bench)


def _tensor_rows(bench: Bench) -> Iterator[Row]:
    data_dir = bench.folder / "pages" / "data"
    server = start_server(data_dir, env={"STATEROOM_DURABLE": "off"}, command=PYTHON_M_APP)
    try:
        with server.client() as http:
            http.post("/v1/models/bench/keys/checkpoints", content=_keys()).raise_for_status()
        with running_browser() as browser:
            weight = _tree(browser, server, from_model=False)[1]
            visits = [_tree(browser, server, from_model=True) for _ in range(bench.rounds)]
    finally:
        server.kill()
        rmtree(data_dir.parent)
    what = f"the page of a checkpoint with {KEYS:,} keys"
    took = Sample(tuple(visit[0] for visit in visits), "less", "s")
    frames = Sample(tuple(visit[2] for visit in visits), "less", "ms")
    yield Row("W3", f"{what}: click to tree", measured=took, bar=Bar(SECONDS))
    yield Row("W4", f"{what}: bytes", measured=Sample((weight,), "less", "B"), bar=Bar(BYTES))
    yield Row("W5", f"{what}: a frame of scrolling", measured=frames, bar=Bar(FRAME))


def _keys() -> bytes:
    parts = (f"layers.{number // LAYER}.experts.{number % LAYER}.weight" for number in range(KEYS))
    file = io.BytesIO()
    torch.save({key: torch.ones(1) for key in parts}, file)
    return file.getvalue()


def _tree(browser: Browser, server: Server, *, from_model: bool) -> tuple[float, int, float]:
    """Open the checkpoint's page in a fresh profile, ``from_model`` by a click on the model's page: seconds from then
    to the tree, bytes, and milliseconds of the median frame while all of it is scrolled.
    """
    with visiting(browser, server.base_url) as visit:
        page = visit.go("/models/bench/keys" if from_model else "/models/bench/keys/checkpoints/1")
        if from_model:
            page.locator("#rows tbody th a").click()
        page.locator("#grid .grid-body .grid-row").first.wait_for()
        page.get_by_text("10,000 of 10,000 tensors").wait_for()
        milliseconds: float = page.evaluate("performance.getEntriesByName('tensors')[0].startTime")
        weight = int(page.evaluate(ENTRIES))
        page.get_by_role("button", name="Open all").click()
        return milliseconds / 1000, weight, median(page.evaluate(FRAMES))


def _server(data_dir: Path, one: Path) -> Server:
    env = {"STATEROOM_DURABLE": "off"}
    first = start_server(data_dir, env=env, command=PYTHON_M_APP)
    try:
        upload(first, one)
    finally:
        first.stop()
    enlarge(f"sqlite:///{data_dir / 'catalog.sqlite3'}", CHECKPOINTS)
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
