"""The page that compares two checkpoints, in a real browser."""

import io
from collections.abc import Mapping

import pytest
import torch
from playwright.sync_api import expect

from tests.pages.conftest import looks
from tests.pages.store import HOSTILE, put
from tests.support.browser import PHONE, Visit, axe_findings, needs_axe
from tests.support.measure import long
from tests.support.server import Server

MODEL = "compared/net"


def saved(state: Mapping[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save({"model_state_dict": dict(state)}, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def compared(full: Server) -> Server:
    """Version 2 has other weights in layer2, a new key with every hostile name, and one key less; 3 is as 1."""
    generator = torch.Generator().manual_seed(1)
    first = {
        f"layer{n}.{part}": torch.randn(40, 40, generator=generator) for n in (1, 2) for part in ("weight", "bias")
    }
    first["old.name"] = torch.randn(50, 50, generator=generator)
    second = {**first, "layer2.weight": first["layer2.weight"] * 1.1, "layer2.bias": first["layer2.bias"] * 1.01}
    second["new.name"] = second.pop("old.name")
    second |= {name: torch.ones(2) for name in HOSTILE}
    with full.client() as http:
        put(http, MODEL, saved(first), epoch=1, loss=0.5, **{"metric.acc": 0.25})
        put(http, MODEL, saved(second), epoch=3, loss=0.25)
        put(http, MODEL, saved(first))
    return full


pytestmark = pytest.mark.usefixtures("compared")


def test_changes_are_measured_and_sorted_by_layer_and_by_tensor(visit: Visit) -> None:
    page = visit.go(f"/models/{MODEL}/diff/1/2")
    expect(page.get_by_role("row", name="loss")).to_contain_text("-0.25")
    expect(page.get_by_role("row", name="epoch")).to_contain_text("+2")
    rows = page.locator(".diffs tbody tr")
    expect(rows.first).to_contain_text("layer2")
    expect(rows.first).to_contain_text("2 changed")
    expect(page.locator("#statuses")).to_contain_text("2 changed7 added1 moved2 same")
    page.get_by_label("By").select_option("tensor")
    expect(rows.nth(0)).to_contain_text("layer2.weight")
    expect(rows.nth(0)).to_contain_text("10%")
    expect(rows.nth(1)).to_contain_text("layer2.bias")
    expect(rows.nth(1)).to_contain_text("1%")
    widths = [rows.nth(row).locator("i").bounding_box()["width"] for row in (0, 1)]
    assert widths[0] == pytest.approx(10 * widths[1], rel=0.1)
    expect(page.locator(".diffs")).to_contain_text("was old.name")
    page.get_by_label("added").uncheck()
    page.get_by_label("Search keys").fill("LAYER2.b")
    expect(rows).to_have_count(1)


def test_names_are_text(visit: Visit) -> None:
    page = visit.go(f"/models/{MODEL}/diff/1/2")
    page.get_by_label("By").select_option("tensor")
    expect(page.locator(".diffs")).to_contain_text("<script>document.title='owned'</script>")
    expect(page.locator(".diffs")).to_contain_text("two\\u000alines\\u0009and a tab")
    assert "owned" not in page.title()


def test_equal_checkpoints_are_said_to_be_so_and_refs_can_be_chosen(visit: Visit) -> None:
    page = visit.go(f"/models/{MODEL}")
    page.get_by_role("link", name="Compare").click()
    expect(page).to_have_url(f"{visit.base_url}/models/{MODEL}/diff/2/3")
    page = visit.go(f"/models/{MODEL}/diff/1/3")
    expect(page.get_by_role("status")).to_have_text("All tensors are the same.")
    expect(page.locator(".diffs tbody tr")).to_have_count(3)
    page.get_by_label("to", exact=True).fill(f"{MODEL}@2")
    page.get_by_role("button", name="Compare").click()
    expect(page).to_have_url(f"{visit.base_url}/models/{MODEL}/diff/1/{MODEL.replace('/', '%2F')}@2")
    expect(page.locator(".diffs tbody tr").first).to_contain_text("layer2")


def test_a_ref_that_is_not_there_is_a_page_that_says_so(compared: Server) -> None:
    for path in (
        f"/models/{MODEL}/diff/1/9",
        f"/models/{MODEL}/diff/1/no%2Fmodel@1",
        f"/models/{MODEL}/diff/1/no%20ref",
    ):
        with compared.client() as http:
            answer = http.get(path)
        assert answer.status_code in {404, 422}, path
        assert answer.headers["Content-Type"].startswith("text/html")


@long
@needs_axe
@pytest.mark.parametrize(("size", "theme"), looks(PHONE, "light"))
def test_axe_finds_nothing(visit: Visit, size: tuple[int, int], theme: str) -> None:
    visit.look(size, theme)
    page = visit.go(f"/models/{MODEL}/diff/1/2")
    expect(page.locator(".diffs .bar").first).to_be_visible()
    assert axe_findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
