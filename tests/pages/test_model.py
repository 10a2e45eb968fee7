"""The page of a model: its curves, its table, its news."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.large_catalog import enlarge
from tests.conftest import StartServer
from tests.pages.conftest import looks
from tests.pages.store import HOSTILE, checkpoint, put
from tests.support.browser import CHARTS, DESKTOP, Visit, axe_findings, needs_axe, visiting
from tests.support.docs import ROOT
from tests.support.measure import long
from tests.support.server import Server, start_server
from tests.support.tokens import catalog_url
from tests.support.waiting import LONG_ENOUGH

MODEL = "/models/vision/classifier"
needs_charts = pytest.mark.skipif(not CHARTS.exists(), reason="no charts at hand: npm ci in web/")


@pytest.fixture
def own(full: Server, model_name: str) -> Iterator[tuple[httpx.Client, str]]:
    """A client, and a model of this test's own with three checkpoints."""
    with full.client() as http:
        for epoch in (1, 2, 3):
            put(http, model_name, checkpoint(epoch), epoch=epoch, loss=1 / epoch, run="first", **{"metric.acc": 0.5})
        yield http, model_name


def drawn(page: Page) -> Page:
    page.wait_for_selector('#charts[aria-busy="false"] canvas')
    return page


def decoded(http: httpx.Client, model: str, **query: object) -> dict[tuple[str, str | None], list[tuple]]:
    """Curves by metric and run: version, x, y and state of each point."""
    answer = http.get(f"/models/{model}/curves.json", params=query).raise_for_status().json()
    found = {}
    for curve in answer["curves"]:
        versions, xs = (
            [sum(column[: at + 1]) for at in range(len(column))] for column in (curve["version"], curve["x"])
        )
        states = [curve["gone"].get(str(at), "live") for at in range(len(versions))]
        key = (answer["metrics"][curve["metric"]], answer["runs"][curve["run"]][0])
        found[key] = list(zip(versions, xs, curve["y"], states, strict=True))
    return found


def test_curves_are_those_of_the_history_with_what_was_removed(full: Server) -> None:
    with full.client() as http:
        history = http.get("/v1/models/vision/classifier/history", params={"limit": 1000}).json()["items"]
        curves = decoded(http, "vision/classifier", metric=["loss", "val_acc"], x="step")
    assert "trashed" in {each["state"] for each in history}
    for metric in ("loss", "val_acc"):
        for run in ("baseline", "wide-head", "cosine-lr"):
            expected = [
                (
                    each["version"],
                    each["step"],
                    each["loss"] if metric == "loss" else each["metrics"][metric],
                    each["state"],
                )
                for each in history
                if each["run"] == run
            ]
            assert curves[metric, run] == [(v, x, float(f"{y:.5g}"), state) for v, x, y, state in expected]


def test_a_stretch_of_a_curve_is_that_stretch(full: Server) -> None:
    with full.client() as http:
        (curve,) = decoded(http, "vision/classifier", x="epoch", run=0, **{"from": 2, "to": 4}).values()
        assert [x for _, x, _, _ in curve] == [2, 3, 4]
        assert decoded(http, "vision/classifier", run=999) == {}
        for wrong in ({"x": "wrong"}, {"from": 10**30}, {"metric": ["a"] * 9}):
            assert http.get(f"{MODEL}/curves.json", params=wrong).status_code == 422
        assert http.get("/models/vision/nothing/curves.json").status_code == 404


@needs_charts
def test_a_point_leads_to_its_checkpoint_by_the_keyboard_and_by_a_click(visit: Visit) -> None:
    page = drawn(visit.go(MODEL))
    chart = page.get_by_role("group", name=re.compile("^loss over epoch"))
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    tip = page.locator("figure", has_text="loss").get_by_role("status")
    expect(tip).to_contain_text("baseline")
    expect(tip).to_contain_text("epoch 7")
    page.keyboard.press("ArrowDown")
    expect(tip).to_contain_text("wide-head")
    version = re.search(r"checkpoint (\d+)", tip.inner_text())[1]
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{visit.base_url}{MODEL}/checkpoints/{version}")
    page = drawn(visit.go(MODEL))
    over = page.locator(".u-over").first
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] - 8)
    expect(tip).to_contain_text("epoch 8")
    page.mouse.down()
    page.mouse.up()
    expect(page).to_have_url(re.compile(f"{MODEL}/checkpoints/[0-9]+$"))


@needs_charts
def test_runs_metrics_scale_and_smoothing_are_chosen(visit: Visit) -> None:
    page = drawn(visit.go(MODEL))
    expect(page.locator("figcaption")).to_have_text(["loss", "val_acc"])
    page.get_by_label("lr", exact=True).check()
    expect(page.locator("figcaption")).to_have_text(["loss", "val_acc", "lr"])
    page.get_by_label("wide-head").uncheck()
    expect(page.get_by_role("group", name=re.compile("loss over epoch: 14 points in 2 runs"))).to_be_visible()
    page.get_by_role("combobox", name="Over").select_option("step")
    expect(page.get_by_role("group", name=re.compile("loss over step"))).to_be_visible()
    page.get_by_label("Log scale").check()
    page.get_by_label("Smoothing").fill("0.6")
    expect(page.locator("canvas")).to_have_count(3)


@needs_charts
def test_a_zoom_asks_for_that_stretch_and_can_be_left(visit: Visit) -> None:
    page = drawn(visit.go(MODEL))
    box = page.locator(".u-over").first.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 60, steps=4)
    with page.expect_response(re.compile(r"curves\.json.*from=3&to=6")):
        page.mouse.up()
    page.get_by_role("button", name="Reset zoom").click()
    expect(page.get_by_role("button", name="Reset zoom")).to_be_hidden()
    expect(page.get_by_role("group", name=re.compile("loss over epoch: 21 points in 3 runs"))).to_be_visible()


def test_the_table_is_sorted_filtered_and_paged_and_the_way_back_works(visit: Visit, own: tuple) -> None:
    http, model = own
    for epoch in range(4, 30):
        put(http, model, checkpoint(1), epoch=epoch, loss=1 / epoch, run="second")
    page = visit.go(f"/models/{model}")
    versions = page.locator("#rows tbody th a")
    assert versions.all_inner_texts() == [str(number) for number in range(29, 4, -1)]
    page.get_by_role("link", name="Loss").click()
    expect(page.get_by_role("columnheader", name="Loss")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("link", name="Loss").click()
    expect(versions.first).to_have_text("1")
    page.get_by_role("link", name="More checkpoints").click()
    expect(versions.first).to_have_text("26")
    page.go_back()
    expect(versions.first).to_have_text("1")
    page.get_by_label("Filter checkpoints").fill('run="first" loss<0.4')
    expect(versions).to_have_text(["3"])
    page.get_by_label("Filter checkpoints").fill("loss is low")
    expect(page.get_by_role("alert")).to_contain_text("'loss is low' is not a filter")
    page.get_by_label("Filter checkpoints").fill("loss<0")
    expect(page.locator("#rows")).to_contain_text("No checkpoint is like this.")


def test_the_best_and_what_is_marked_are_seen(visit: Visit) -> None:
    page = visit.go(MODEL)
    best = page.get_by_role("row").filter(has=page.locator(".chip.best"))
    expect(best).to_contain_text("prod")
    expect(page.get_by_role("row").filter(has_text="pinned")).to_have_count(1)
    expect(page.locator("#facts")).to_contain_text("20 in 3 runs")


@pytest.mark.parametrize("way", ["events", "polling"])
def test_a_new_checkpoint_appears_by_itself(visit: Visit, own: tuple, way: str) -> None:
    http, model = own
    if way == "polling":
        visit.page.route("**/events*", lambda route: (
            route.abort() if route.request.resource_type == "eventsource" else route.continue_()
        ))  # fmt: skip
    page = visit.go(f"/models/{model}")
    expect(page.locator("#rows tbody tr")).to_have_count(3)
    put(http, model, checkpoint(9), epoch=4, loss=0.1, run="third")
    expect(page.locator("#rows tbody tr")).to_have_count(4)
    expect(page.locator("#facts")).to_contain_text("4 in 2 runs")
    expect(page.locator("#news")).to_have_text("Checkpoint 4: created.")
    if CHARTS.exists():
        expect(page.get_by_label("third")).to_be_checked()
        expect(page.get_by_role("group", name=re.compile("loss over epoch: 4 points in 2 runs"))).to_be_visible()
    if way == "polling":
        visit.errors.clear()  # the browser reports the stream that was cut


def test_a_preview_says_what_the_api_says_and_changes_nothing(visit: Visit) -> None:
    page = visit.go(MODEL)
    page.get_by_label("Keep the last").fill("2")
    page.get_by_role("button", name="Preview").click()
    rules = {"retention": {"keep_last": 2}}
    with httpx.Client(base_url=visit.base_url, timeout=LONG_ENOUGH, trust_env=False, verify=False) as http:
        told = http.post("/v1/models/vision/classifier/retention/preview", json=rules).json()
        expect(page.locator("#preview-answer")).to_contain_text(
            f"{told['trashed_count']} checkpoints would go to the trash, {told['kept_count']} would stay."
        )
        assert http.get("/v1/models/vision/classifier").json()["checkpoints"] == 20
    page.get_by_label("Keep the last").fill("")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview-answer")).to_contain_text("retention has no rule")
    visit.errors.clear()  # the browser reports the 422


def test_every_name_is_text(visit: Visit) -> None:
    for path in ("/", "/models/hostile/names", "/models/hostile/names/checkpoints/1"):
        page = visit.go(path)
        assert "owned" not in page.title()
        assert page.evaluate("document.querySelectorAll('script:not([src]), [onmouseover]').length") == 0
        assert "\u202e" not in page.inner_text("body")
        assert page.evaluate("[...document.links].every(link => /^https?:$/.test(link.protocol))")
    if CHARTS.exists():
        page = drawn(visit.go("/models/hostile/names"))
        expect(page.locator("#runs label")).to_have_count(len(HOSTILE))
        expect(page.locator("#runs")).to_contain_text(HOSTILE[0])
        for box in page.locator("#metrics input").all()[2:5]:
            box.check()
        expect(page.locator("figcaption")).to_have_count(5)
    assert page.get_by_role("row").filter(has_text=HOSTILE[0]).count() == 1
    assert "owned" not in page.title()


def test_the_page_works_without_scripts(browser: Browser, full: Server) -> None:
    with visiting(browser, full.base_url, scripts=False) as visit:
        page = visit.go(MODEL)
        expect(page.get_by_role("img", name="The loss of the last checkpoints")).to_be_visible()
        expect(page.locator("#controls")).to_be_hidden()
        page.get_by_role("link", name="val_acc").click()
        expect(page.get_by_role("columnheader", name="val_acc")).to_have_attribute("aria-sort", "ascending")
        page.get_by_label("Filter checkpoints").fill("run=baseline")
        page.keyboard.press("Enter")
        expect(page.locator("#rows tbody tr")).to_have_count(7)
        expect(page.get_by_role("columnheader", name="val_acc")).to_have_attribute("aria-sort", "ascending")


def test_without_the_chart_library_all_else_is_there_and_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("vendor"))
    (tmp_path / "migrations").symlink_to(ROOT / "migrations")
    (tmp_path / "run.py").write_text("import sys\nfrom app.__main__ import main\nsys.exit(main())\n")
    command = (sys.executable, str(tmp_path / "run.py"))
    server = start_server(tmp_path / "data", env={"STATEROOM_DURABLE": "off", "PYTHONPATH": ""}, command=command)
    try:
        with server.client() as http:
            for loss in (0.5, 0.4):
                put(http, "a/b", checkpoint(1), loss=loss)
        with visiting(browser, server.base_url) as visit:
            page = visit.go("/models/a/b")
            expect(page.locator("#curves")).to_contain_text("Charts need uPlot")
            expect(page.get_by_role("img", name="The loss of the last checkpoints")).to_be_visible()
            expect(page.locator("#rows tbody tr")).to_have_count(2)
        assert visit.errors == []
    finally:
        server.kill()


@needs_charts
def test_the_page_of_a_model_with_10_000_checkpoints_is_light(browser: Browser, fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    with server.client() as http:
        put(http, "bench/many", checkpoint(1), epoch=1, loss=0.5, run="run-1", **{"metric.acc": 0.5})
    server.stop()
    enlarge(catalog_url(server), 10_000)
    server.restart()
    with visiting(browser, server.base_url) as visit:
        page = drawn(visit.go("/models/bench/many"))
        expect(page.get_by_role("group", name=re.compile("loss over epoch: 4000 points in 8 runs"))).to_be_visible()
        kinds = ["navigation", "resource"]
        entries = page.evaluate(
            "kinds => kinds.flatMap(kind => performance.getEntriesByType(kind)).map(e => e.toJSON())", kinds
        )
        assert sum(entry["transferSize"] for entry in entries) < 200_000, json.dumps(entries, indent=1)
        assert len({entry["name"] for entry in entries if "curves.json" in entry["name"]}) == 1
        expect(page.locator("#rows tbody tr")).to_have_count(25)
    assert visit.errors == []


def test_a_checkpoint_has_a_page_under_every_ref(visit: Visit, full: Server) -> None:
    with full.client() as http:
        for ref in ("8", "v8", "latest", "best", "prod", "max:val_acc", "min%3Aloss", "epoch:2"):
            answer = http.get(f"{MODEL}/checkpoints/{ref}")
            assert re.search(r'<h1><span class="dim">vision/classifier@</span>\d+</h1>', answer.text), ref
    expect(visit.go(f"{MODEL}/checkpoints/8").locator("main")).to_contain_text("in the paper")
    page = visit.go(f"{MODEL}/checkpoints/best")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download model_state_dict").click()
    assert Path(download.value.path()).read_bytes()[:2] == b"PK"
    expect(page.locator("#line-python")).to_contain_text(f'Client("{visit.base_url}")')


def test_what_is_not_there_is_a_page_that_says_so(full: Server) -> None:
    with full.client() as http:
        for path, status, text in (
            ("/models/vision/nothing", 404, "there is no model vision/nothing; its namespace has"),
            (f"{MODEL}/checkpoints/999", 404, "has no version 999"),
            (f"{MODEL}/checkpoints/%3Cb%3E", 422, "&lt;b&gt;"),
            ("/models/a/..", 404, None),
            ("/models/.a/b", 422, "is not a valid model name"),
            (f"{MODEL}?order=wrong", 422, "there is no field"),
            (f"{MODEL}?cursor=wrong", 422, "the cursor is invalid"),
        ):
            answer = http.get(path)
            assert answer.status_code == status
            if text is not None:
                assert text in answer.text
                assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


@long
@needs_axe
@pytest.mark.parametrize(("size", "theme"), looks(DESKTOP, "dark"))
def test_axe_finds_nothing(visit: Visit, size: tuple[int, int], theme: str) -> None:
    visit.look(size, theme)
    for path in (f"{MODEL}?filter=epoch>5", f"{MODEL}?filter=wrong", f"{MODEL}/checkpoints/best"):
        page = visit.go(path)
        if CHARTS.exists() and "checkpoints" not in path:
            drawn(page)
        assert axe_findings(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
