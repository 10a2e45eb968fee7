"""The pages that change something, or show what was changed: the trash, events, namespaces, uploads."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import StartServer
from tests.pages.conftest import looks
from tests.pages.store import HOSTILE, checkpoint, put
from tests.support.browser import DESKTOP, Visit, axe_findings, needs_axe, visiting
from tests.support.measure import long
from tests.support.server import Server
from tests.support.tokens import bearer, catalog_url, make_token


@pytest.fixture
def http(full: Server) -> Iterator[httpx.Client]:
    with full.client() as http:
        yield http


def test_a_checkpoint_comes_back_from_the_trash_or_is_purged(visit: Visit, http: httpx.Client) -> None:
    for epoch in range(1, 4):
        put(http, "pages/trash", checkpoint(epoch), epoch=epoch, run=HOSTILE[0])
    for version in (1, 2):
        http.delete(f"/v1/models/pages/trash/checkpoints/{version}").raise_for_status()
    page = visit.go("/models/pages/trash/trash")
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody")).to_contain_text(HOSTILE[0])
    page.get_by_role("button", name="Restore version 1").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text("Version 1 is back.")
    page.get_by_role("button", name="Purge version 2").click()
    dialog = page.get_by_role("dialog", name="Purge version 2?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Purge version 2").click()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#rows")).to_contain_text("The trash is empty")
    kept = http.get("/v1/models/pages/trash/history").json()["items"]
    assert [entry["state"] for entry in kept] == ["live", "purged", "live"]


def test_events_appear_as_they_happen_and_are_filtered_by_kind(visit: Visit, http: httpx.Client) -> None:
    put(http, "pages/events", checkpoint(1))
    page = visit.go("/models/pages/events/events")
    expect(page.locator("tbody tr")).to_have_count(1)
    http.put("/v1/models/pages/events/aliases/prod", json={"ref": 1}).raise_for_status()
    expect(page.locator("tbody tr").first).to_contain_text("alias moved")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Kind").select_option("checkpoint-created")
    expect(page).to_have_url(f"{visit.base_url}/models/pages/events/events?kind=checkpoint-created")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(visit.go("/events").locator("tbody tr").first).to_contain_text("pages/events")
    expect(visit.go("/models/pages/nothing/events").locator("h1")).to_be_visible()
    visit.errors.clear()  # the browser complains of the 404


def test_quotas_are_set_in_units_and_removed(visit: Visit, http: httpx.Client) -> None:
    put(http, "limited/model", checkpoint(1))

    def quotas() -> tuple[int | None, int | None]:
        found = http.get("/v1/namespaces/limited").json()
        return found["quota_bytes"], found["quota_checkpoints"]

    page = visit.go("/namespaces")
    page.get_by_role("button", name="Quotas of limited").click()
    page.get_by_label("Most bytes in the store").fill("1.5 GB")
    page.get_by_label("Most checkpoints").fill("20")
    page.get_by_role("button", name="Set").click()
    expect(page.get_by_role("row", name="limited")).to_contain_text("of 1.5 GB")
    assert quotas() == (1_500_000_000, 20)
    page.get_by_role("button", name="Quotas of limited").click()
    expect(page.get_by_label("Most bytes in the store")).to_have_value("1.5 GB")
    page.get_by_label("Most bytes in the store").fill("")
    page.get_by_role("button", name="Set").click()
    expect(page.get_by_role("row", name="limited")).not_to_contain_text("GB")
    assert quotas() == (None, 20)


def test_files_are_uploaded_one_after_another_and_a_refusal_says_why(visit: Visit, http: httpx.Client, tmp_path: Path):
    good, bad = tmp_path / "good.pt", tmp_path / "<b>bad.pt"
    good.write_bytes(checkpoint(1, epoch=7))
    bad.write_bytes(b"no checkpoint")
    page = visit.go("/upload?model=pages/uploaded")
    page.get_by_label("Run").fill("from a browser")
    page.get_by_label("Drop files here").set_input_files([good, bad])
    expect(page.locator(".sent li")).to_have_count(2)
    expect(page.locator(".sent li", has_text="good.pt").get_by_role("link")).to_have_text("pages/uploaded@1")
    refused = page.locator(".sent li", has_text="<b>bad.pt")
    expect(refused).to_contain_text("was refused")
    expect(refused.locator(".words")).to_contain_text("torch.save")
    stored = http.get("/v1/models/pages/uploaded/checkpoints").json()["items"]
    assert [(each["epoch"], each["run"]) for each in stored] == [(7, "from a browser")]
    visit.errors.clear()  # the browser complains of the 422


def test_dropped_files_are_uploaded_and_a_wrong_model_sends_nothing(visit: Visit, http: httpx.Client) -> None:
    page = visit.go("/upload?model=no-slash")
    content = list(checkpoint(2))
    drop = """content => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(content)], "dropped.pt"));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
    }"""
    page.evaluate(drop, content)
    expect(page.locator(".sent li")).to_have_count(0)
    page.get_by_label("Model").fill("pages/dropped")
    page.evaluate(drop, content)
    expect(page.get_by_role("link", name="pages/dropped@1")).to_be_visible()
    assert http.get("/v1/models/pages/dropped/checkpoints/1/original").content == bytes(content)


def test_who_may_not_change_sees_no_buttons_and_no_administration(browser: Browser, fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    url = catalog_url(server)
    reader, admin = make_token(url, "reader", "read"), make_token(url, "admin", "admin")
    with server.client(headers=bearer(admin)) as http:
        put(http, "pages/guarded", checkpoint(1))
        put(http, "pages/guarded", checkpoint(2))
        http.delete("/v1/models/pages/guarded/checkpoints/1").raise_for_status()
    for token, may in ((reader, False), (admin, True)):
        with visiting(browser, server.base_url, token=token) as visit:
            page = visit.go("/models/pages/guarded/trash")
            expect(page.locator("tbody tr")).to_have_count(1)
            expect(page.get_by_role("button", name="Restore")).to_have_count(int(may))
            expect(page.get_by_role("link", name="Events")).to_have_count(int(may))
            for path, title in (
                ("/namespaces", "Namespaces"),
                ("/events", "Events"),
                ("/upload", "Upload checkpoints"),
            ):
                page = visit.go(path)
                expect(page.get_by_role("heading", name=title)).to_have_count(int(may))
                expect(page.locator(".eyebrow", has_text="403")).to_have_count(int(not may))


@long
@needs_axe
@pytest.mark.parametrize(("size", "theme"), looks(DESKTOP, "dark"))
def test_axe_finds_nothing(visit: Visit, http: httpx.Client, size: tuple[int, int], theme: str) -> None:
    put(http, f"pages/axe-{size[0]}-{theme}", checkpoint(1), run=HOSTILE[3])
    put(http, f"pages/axe-{size[0]}-{theme}", checkpoint(2))
    http.delete(f"/v1/models/pages/axe-{size[0]}-{theme}/checkpoints/1").raise_for_status()
    http.put("/v1/namespaces/pages", json={"quota_bytes": 10**9}).raise_for_status()
    visit.look(size, theme)
    for path in (f"/models/pages/axe-{size[0]}-{theme}/trash", "/namespaces", "/events", "/upload"):
        page = visit.go(path)
        assert axe_findings(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], path
    page = visit.go("/namespaces")
    page.get_by_role("button", name="Quotas of pages").click()
    assert axe_findings(page) == []
