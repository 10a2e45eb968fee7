"""Changes of a checkpoint on its page: aliases, metrics and tags, pins, the trash."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from tests.pages.conftest import looks
from tests.pages.store import HOSTILE, checkpoint, put
from tests.support.browser import PHONE, Visit, axe_findings, needs_axe
from tests.support.measure import long
from tests.support.server import Server


@pytest.fixture
def http(full: Server) -> Iterator[httpx.Client]:
    with full.client() as http:
        yield http


@pytest.fixture
def model(http: httpx.Client, request: pytest.FixtureRequest) -> str:
    """A model of three checkpoints, the second with the alias prod."""
    name = f"changes/{request.node.name.replace('[', '-').rstrip(']')[:100]}"
    for epoch in range(1, 4):
        put(http, name, checkpoint(epoch), epoch=epoch, **{"metric.acc": epoch / 4, "tag.by": HOSTILE[0]})
    http.put(f"/v1/models/{name}/aliases/prod", json={"ref": 2}).raise_for_status()
    return name


def test_an_alias_moves_when_that_is_confirmed_and_goes_back(visit: Visit, http: httpx.Client, model: str) -> None:
    def prod() -> int:
        return http.get(f"/v1/models/{model}/aliases/prod").json()["version"]

    page = visit.go(f"/models/{model}/checkpoints/3")
    page.get_by_label("Alias", exact=True).fill("prod")
    page.get_by_role("button", name="Point it here").click()
    dialog = page.get_by_role("dialog", name="Point prod to version 3?")
    expect(dialog).to_contain_text("It is version 2 now.")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    assert prod() == 2
    page.keyboard.press("Enter")
    dialog.get_by_label("Note").fill("better")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("prod: version 2 → 3")
    assert prod() == 3
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status")).to_contain_text("prod is version 2 again.")
    history = http.get(f"/v1/models/{model}/aliases/prod/history").json()["items"]
    assert [(each["version"], each["note"]) for each in history][1] == (3, "better")


def test_of_two_who_move_an_alias_the_second_is_told(visit: Visit, http: httpx.Client, model: str) -> None:
    page = visit.go(f"/models/{model}/checkpoints/3")
    page.get_by_label("Alias", exact=True).fill("prod")
    page.get_by_role("button", name="Point it here").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    http.put(f"/v1/models/{model}/aliases/prod", json={"ref": 1}).raise_for_status()
    page.get_by_role("button", name="Move it").click()
    expect(page.get_by_role("status")).to_contain_text("moved by somebody else meanwhile")
    assert http.get(f"/v1/models/{model}/aliases/prod").json()["version"] == 1
    visit.errors.clear()  # the browser complains of the 412


def test_metrics_and_tags_are_edited_and_nothing_else_is_sent(visit: Visit, http: httpx.Client, model: str) -> None:
    page = visit.go(f"/models/{model}/checkpoints/1")
    page.get_by_role("button", name="Edit metrics and tags").click()
    page.get_by_label("Value of acc").fill("")
    page.get_by_label("Name of one of the metrics").last.fill("f1")
    page.get_by_label("Value of new metrics").fill("0.75")
    expect(page.get_by_label("Value of by")).to_have_value(HOSTILE[0])
    page.get_by_label("Name of one of the tags").last.fill('<i>"note')
    page.get_by_label("Value of new tags").fill("a & b")
    with page.expect_request(lambda request: request.method == "PATCH") as sent, page.expect_navigation():
        page.get_by_role("button", name="Save").click()
    assert sent.value.post_data_json == {"metrics": {"acc": None, "f1": 0.75}, "tags": {'<i>"note': "a & b"}}
    found = http.get(f"/v1/models/{model}/checkpoints/1").json()
    assert (found["metrics"], found["tags"]) == ({"f1": 0.75}, {"by": HOSTILE[0], '<i>"note': "a & b"})
    expect(page.locator("main")).to_contain_text('<i>"note')


def test_a_pin_keeps_a_checkpoint_and_the_trash_gives_it_back(visit: Visit, http: httpx.Client, model: str) -> None:
    page = visit.go(f"/models/{model}/checkpoints/1")
    page.get_by_role("button", name="Pin", exact=True).click()
    page.get_by_label("Reason").fill("in the paper")
    with page.expect_navigation():
        page.get_by_role("dialog").get_by_role("button", name="Pin").click()
    expect(page.locator("main")).to_contain_text("in the paper")
    page.get_by_role("button", name="Move to the trash").click()
    page.get_by_role("dialog").get_by_role("button", name="Move to the trash").click()
    expect(page.get_by_role("status")).to_contain_text("pin")
    visit.errors.clear()  # the browser complains of the 409
    with page.expect_navigation():
        page.get_by_role("button", name="Unpin").click()
    page.get_by_role("button", name="Move to the trash").click()
    page.get_by_role("dialog").get_by_role("button", name="Move to the trash").click()
    expect(page.get_by_role("status")).to_contain_text("Version 1 is in the trash.")
    assert http.get(f"/v1/models/{model}/checkpoints/1").status_code == 404
    with page.expect_navigation():
        page.get_by_role("button", name="Undo").click()
    visit.errors.clear()  # the browser complains if the page asked for something of the trashed checkpoint
    assert http.get(f"/v1/models/{model}/checkpoints/1").status_code == 200


@long
@needs_axe
@pytest.mark.parametrize(("size", "theme"), looks(PHONE, "light"))
def test_axe_finds_nothing_in_the_dialogs(visit: Visit, model: str, size: tuple[int, int], theme: str):
    visit.look(size, theme)
    page = visit.go(f"/models/{model}/checkpoints/2")
    assert axe_findings(page) == []
    for button in ("Edit metrics and tags", "Pin", "Move to the trash", "Remove alias prod"):
        page.get_by_role("button", name=button, exact=True).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert axe_findings(page) == [], button
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
