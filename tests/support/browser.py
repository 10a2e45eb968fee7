"""A real browser, the system's Chromium, that only ever talks to the servers under test."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect, sync_playwright

from tests.support.docs import ROOT
from tests.support.waiting import LONG_ENOUGH

expect.set_options(timeout=1000 * LONG_ENOUGH)

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESKTOP, PHONE = (1280, 900), (390, 844)
AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
CHARTS = ROOT / "app/api/pages/static/vendor/uPlot.iife.min.js"


needs_axe = pytest.mark.skipif(not AXE.exists(), reason="no axe at hand: npm ci in web/")


def browser_program() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start the browser; skip the test where there is none."""
    program = browser_program()
    if program is None:
        pytest.skip("no browser at hand: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass(slots=True)
class Visit:
    """A page of a server, and what went wrong or was asked for meanwhile."""

    page: Page
    base_url: str
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """Open ``path``; its scripts have been run."""
        self.page.goto(self.base_url + path)
        return self.page

    def look(self, size: tuple[int, int], theme: str) -> None:
        """Show pages in a window of this size, to a visitor who prefers this theme."""
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")

    @property
    def elsewhere(self) -> list[str]:
        """Requests that went to another server."""
        return [url for url in self.requested if not url.startswith((self.base_url + "/", "data:", "blob:"))]


@contextmanager
def fresh_page(
    browser: Browser,
    size: tuple[int, int] = DESKTOP,
    *,
    theme: str = "light",
    scripts: bool = True,
    token: str | None = None,
) -> Iterator[Page]:
    """Open a page in a fresh profile. With a ``token``, each request shows it, as if the visitor had signed in."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if theme == "dark" else "light",
        java_script_enabled=scripts,
        extra_http_headers=headers,
        reduced_motion="reduce",
    )
    context.set_default_timeout(1000 * LONG_ENOUGH)
    try:
        yield context.new_page()
    finally:
        context.close()


@contextmanager
def watching(page: Page, base_url: str) -> Iterator[Visit]:
    """Note what goes wrong in a page, and what it asks for."""
    visit = Visit(page, base_url)

    def close(dialog: Dialog) -> None:
        visit.errors.append(dialog.message)
        dialog.dismiss()

    listeners: dict[str, Callable[..., None]] = {
        "pageerror": lambda error: visit.errors.append(str(error)),
        "console": lambda said: visit.errors.append(said.text) if said.type in {"error", "warning"} else None,
        "dialog": close,  # pages have none of the browser's own
        "request": lambda request: visit.requested.append(request.url),
    }
    for event, listener in listeners.items():
        page.on(event, listener)  # type: ignore[call-overload]  # the name of an event is a literal to it
    try:
        yield visit
    finally:
        for event, listener in listeners.items():
            page.remove_listener(event, listener)


@contextmanager
def visiting(
    browser: Browser,
    base_url: str,
    size: tuple[int, int] = DESKTOP,
    *,
    theme: str = "light",
    scripts: bool = True,
    token: str | None = None,
) -> Iterator[Visit]:
    """Visit a server with a fresh profile: see ``fresh_page``."""
    with (
        fresh_page(browser, size, theme=theme, scripts=scripts, token=token) as page,
        watching(page, base_url) as visit,
    ):
        yield visit


def forget(page: Page) -> None:
    """Leave a page as it is in a fresh profile, but for the cache of what servers said is to be kept."""
    page.unroute_all()
    if page.url.startswith("http"):
        page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
    page.context.clear_cookies()
    page.context.clear_permissions()
    page.goto("about:blank")
    page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
    page.emulate_media(color_scheme="light")


def axe_findings(page: Page) -> list[str]:
    """Return the findings of axe, at WCAG 2.2 AA, in the page as it stands: rule and place of each."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())  # through the debugger, so the page's own policy stays as it is
    found = page.evaluate(
        """axe.run({
            runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
            resultTypes: ["violations"],  // every node of these, and one of what passes
        }).then(results => results.violations)"""
    )
    return [
        f"{violation['id']}: {node['target']} {node.get('failureSummary', '')}"
        for violation in found
        for node in violation["nodes"]
    ]
