"""A real browser, the system's Chromium, that only ever talks to the servers under test."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

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
    """A page of a server in a fresh browser profile, and what went wrong or was asked for meanwhile."""

    page: Page
    base_url: str
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """Open ``path``; its scripts have been run."""
        self.page.goto(self.base_url + path)
        return self.page

    @property
    def elsewhere(self) -> list[str]:
        """Requests that went to another server."""
        return [url for url in self.requested if not url.startswith((self.base_url + "/", "data:", "blob:"))]


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
    """Open a fresh profile. With a ``token``, each request shows it, as if the visitor had signed in."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if theme == "dark" else "light",
        java_script_enabled=scripts,
        extra_http_headers=headers,
        reduced_motion="reduce",
    )
    context.set_default_timeout(1000 * LONG_ENOUGH)
    visit = Visit(context.new_page(), base_url)
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("console", lambda said: visit.errors.append(said.text) if said.type in {"error", "warning"} else None)
    visit.page.on("request", lambda request: visit.requested.append(request.url))
    try:
        yield visit
    finally:
        context.close()


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
