"""A browser for each test module, and servers that look like ones in use."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.pages.store import fill, fill_hostile
from tests.support.browser import DESKTOP, PHONE, Visit, running_browser, visiting
from tests.support.measure import measure
from tests.support.server import Server, start_server

LOOKS = measure(
    [(DESKTOP, "dark"), (PHONE, "light")],
    [(size, theme) for size in (DESKTOP, PHONE) for theme in ("light", "dark")],
)
"""Sizes and themes in which axe looks at each page: each of them once, or each with each with ``make stress``."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="package")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a few models, one of them hostile. Tests that change a model add one of their own.

    Pages ask the catalog for nothing that its own tests don't ask on each database.
    """
    server = start_server(tmp_path_factory.mktemp("pages") / "data", env={"STATEROOM_DURABLE": "off"})
    with server.client() as http:
        fill(http)
        fill_hostile(http)
    yield server
    server.kill()


@pytest.fixture
def visit(browser: Browser, full: Server) -> Iterator[Visit]:
    """A visitor of ``full``. Fails the test if a page had an error, or asked another server for anything."""
    with visiting(browser, full.base_url) as visit:
        yield visit
    assert visit.errors == []
    assert visit.elsewhere == []
