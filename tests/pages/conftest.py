"""A browser for all of these tests, and servers that look like ones in use."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.pages.store import fill, fill_hostile
from tests.support.browser import DESKTOP, PHONE, Visit, forget, fresh_page, running_browser, watching
from tests.support.measure import measure
from tests.support.server import Server, start_server


def looks(size: tuple[int, int], theme: str) -> list[tuple[tuple[int, int], str]]:
    """Return the sizes and themes in which axe looks at a page: these, or each with each with ``make stress``.

    The pages share a style, so half of them are seen on a phone, and half in the dark.
    """
    every = [(one, other) for one in (DESKTOP, PHONE) for other in ("light", "dark")]
    return measure([(size, theme)], every)


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def shared_page(browser: Browser) -> Iterator[Page]:
    with fresh_page(browser) as page:
        yield page


@pytest.fixture
def tab(shared_page: Page) -> Iterator[Page]:
    """A page that is as in a fresh profile, for all tests that need no other: a profile takes as long as a test."""
    yield shared_page
    forget(shared_page)


@pytest.fixture
def visit(tab: Page, full: Server) -> Iterator[Visit]:
    """A visitor of ``full``. Fails the test if a page had an error, or asked another server for anything."""
    with watching(tab, full.base_url) as visit:
        yield visit
    assert visit.errors == []
    assert visit.elsewhere == []
