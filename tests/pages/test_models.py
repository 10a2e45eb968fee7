"""The start page, in a real browser."""

import re

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import StartServer
from tests.pages.conftest import looks
from tests.pages.store import checkpoint, put
from tests.support.browser import PHONE, Visit, axe_findings, needs_axe, visiting, watching
from tests.support.measure import long
from tests.support.server import Server
from tests.support.waiting import LONG_ENOUGH


def test_each_model_has_a_row_that_leads_to_it(visit: Visit) -> None:
    page = visit.go("/")
    row = page.get_by_role("row", name="vision/classifier")
    expect(row).to_contain_text("max:val_acc")
    expect(row.get_by_role("img")).to_be_visible()
    assert [cell.inner_text() for cell in row.get_by_role("cell").all()][-4:-1] == ["20", "3", "1.81 MB"]


def test_the_search_finds_models_as_one_types(visit: Visit) -> None:
    page = visit.go("/")
    page.keyboard.press("/")
    page.keyboard.type("vis")
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page).to_have_url(f"{visit.base_url}/?q=vis")
    page.keyboard.type("-nothing")
    expect(page.locator("#found")).to_contain_text("No model has vis-nothing in its name")
    page.get_by_role("link", name="Show all models").click()
    expect(page.get_by_role("row", name="nlp/tokens.embedding")).to_be_visible()


def test_the_start_page_works_without_scripts(browser: Browser, full: Server) -> None:
    with visiting(browser, full.base_url, scripts=False) as visit:
        page = visit.go("/")
        page.get_by_role("searchbox").fill("SPEECH")
        page.keyboard.press("Enter")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.get_by_role("button", name="Theme")).to_be_hidden()
        page.get_by_role("link", name="HTTP API").click()
        expect(page).to_have_url(f"{full.base_url}/docs")
    assert visit.errors == []


def test_the_theme_that_one_chooses_is_kept(visit: Visit) -> None:
    page = visit.go("/")

    def ground() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = ground()
    button = page.get_by_role("button", name="Theme")
    button.click()
    button.click()
    expect(button).to_have_text("Theme: dark")
    dark = ground()
    assert dark != light
    visit.go("/")
    assert ground() == dark
    button.click()
    assert ground() == light


def test_an_empty_server_shows_how_to_fill_it(tab: Page, fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    with watching(tab, server.base_url) as visit:
        commands = visit.go("/").locator("pre").all_inner_texts()
        assert commands[0] == 'pip install "stateroom[torch]"'
        assert f'Client("{server.base_url}")' in commands[1]
        address = commands[2].split()[-1]
        content = checkpoint(1)
        with httpx.Client(timeout=LONG_ENOUGH, trust_env=False, verify=False) as http:
            assert http.put(address, content=content).status_code == 201
        expect(visit.go("/").get_by_role("row", name="vision/classifier")).to_be_visible()
    assert visit.errors == visit.elsewhere == []


def test_many_models_come_in_pages(tab: Page, fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    content = checkpoint(1)
    with server.client() as http:
        for number in range(35):
            put(http, f"many/m{number:02}", content)
    with watching(tab, server.base_url) as visit:
        page = visit.go("/?q=many")
        expect(page.locator("tbody tr")).to_have_count(30)
        page.get_by_role("link", name="More models").click()
        expect(page.locator("tbody tr")).to_have_count(5)
        page.get_by_role("link", name="First page").click()
        expect(page.locator("tbody tr")).to_have_count(30)


@long
@needs_axe
@pytest.mark.parametrize(("size", "theme"), looks(PHONE, "light"))
def test_axe_finds_nothing(visit: Visit, size: tuple[int, int], theme: str) -> None:
    visit.look(size, theme)
    for path in ("/", "/?q=nothing", "/?cursor=wrong"):
        page = visit.go(path)
        assert axe_findings(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    visit.errors.clear()  # the browser complains of the 422


def test_a_static_file_is_kept_forever_and_may_be_packed(full: Server) -> None:
    with full.client() as http:
        (style,) = re.findall(r'href="\./(static/\w+/page\.css)"', http.get("/").text)
        packed = http.get(style, headers={"Accept-Encoding": "gzip"})
        plain = http.get(style, headers={"Accept-Encoding": "identity"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.text == plain.text
        assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        again = http.get(style, headers={"If-None-Match": plain.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        older = http.get("static/0000/page.css")
        assert (older.text, older.headers["Cache-Control"]) == (plain.text, "no-cache")
        for path in ("static/0000/nothing.js", "static/0000/../static.py", "static/0000/%2e%2e/static.py"):
            assert http.get(path).status_code == 404


def test_a_page_is_under_a_policy_that_lets_nothing_else_run(full: Server) -> None:
    with full.client() as http:
        for path in ("/", "/?cursor=wrong"):
            page = http.get(path)
            assert page.headers["Content-Type"] == "text/html; charset=utf-8"
            policy = page.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            assert not re.search(r"<script>|\son\w+=|\sstyle=|https?://(?!127)", page.text)
        assert page.status_code == 422
        moved = http.get("/redoc", follow_redirects=True)
        assert moved.url.path == "/docs"
        assert http.put("/").headers["Allow"] == "GET"
