"""The page of a checkpoint, in a real browser: facts, lineage, the tree of tensors, selections, and lines to copy."""

import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from tests.conftest import StartServer
from tests.pages.conftest import looks
from tests.pages.store import HOSTILE, checkpoint, put
from tests.support.browser import DESKTOP, Visit, axe_findings, needs_axe, visiting
from tests.support.commands import run_program
from tests.support.measure import long
from tests.support.scripts import run_script
from tests.support.server import Server, server_environment

BEST = "/models/vision/classifier/checkpoints/best"
MODEL = "tests/tree"
HERE = f"/models/{MODEL}/checkpoints/3"
COMPONENT = "model_state_dict"


def weights() -> dict[str, torch.Tensor]:
    """Layers of a network, tied weights, keys with every character that a pattern has, and a tensor with NaN."""
    numbers = torch.Generator().manual_seed(1)
    layers = {
        f"layers.{layer}.{part}.weight": torch.randn(8, 40, generator=numbers)
        for layer in range(30)
        for part in ("attention", "mlp")
    }
    tied = torch.randn(100, 40, generator=numbers)
    odd = {"a[0]*?": torch.ones(3), "re:.*": torch.ones(4), "." * 4_000: torch.ones(5), "two\nlines": torch.ones(6)}
    return {"embed.weight": tied, **layers, "head.weight": tied, "nan": torch.tensor([1.0, torch.nan]), **odd}


@pytest.fixture(scope="module")
def tree(full: Server) -> Iterator[httpx.Client]:
    """A model of four checkpoints: 3 goes on from 2, which is in the trash and went on from 1; 4 was begun with 3."""
    with full.client() as http:
        put(http, MODEL, checkpoint(1))
        put(http, MODEL, checkpoint(2), parent=f"{MODEL}@1")
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(2)).backward()
        optimizer.step()
        file = io.BytesIO()
        torch.save({COMPONENT: weights(), "optimizer_state_dict": optimizer.state_dict()}, file)
        put(http, MODEL, file.getvalue(), parent=f"{MODEL}@2")
        put(http, MODEL, checkpoint(3), warm_started_from=f"{MODEL}@3", epoch=7)
        http.delete(f"/v1/models/{MODEL}/checkpoints/2").raise_for_status()
        yield http


def opened(visit: Visit, path: str) -> Page:
    """Open a checkpoint's page; its tree is there, and so are the lines."""
    page = visit.go(path)
    expect(page.locator("#grid .grid-body .grid-row").first).to_be_visible()
    expect(page.locator("#told")).to_contain_text("tensors are selected")
    return page


def active(page: Page) -> str:
    """The row that has the focus."""
    return page.evaluate("document.activeElement.querySelector('bdi').textContent")


def test_the_tree_is_walked_with_the_keyboard_and_a_tensor_shows_its_statistics(
    visit: Visit, tree: httpx.Client
) -> None:
    page = opened(visit, HERE)
    expect(page.locator("#plain")).to_be_hidden()
    grid = page.get_by_role("treegrid", name="Tensors")
    grid.locator(".grid-body .grid-row").first.focus()
    assert active(page) == "embed"
    page.keyboard.press("ArrowRight")
    assert active(page) == "weight"
    page.keyboard.press("Enter")
    panel = page.get_by_role("region", name="The chosen tensor")
    expect(panel.get_by_role("heading")).to_have_text("embed.weight")
    expect(panel).to_contain_text("Shares its storage withhead.weight")
    expect(panel.get_by_role("img", name="Histogram")).to_be_visible()
    (told,) = tree.get(f"/v1{HERE}/stats", params={"component": COMPONENT, "include": "embed.weight"}).json()["items"]
    expect(panel).to_contain_text("Minimum" + format(told["min"], ".5g"))
    page.keyboard.press("End")
    assert active(page) == "two\\nlines"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    expect(grid.get_by_role("row", name="embed")).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#way")).to_contain_text("layers, 76.8 kB")
    expect(panel).to_contain_text("Tensors60")


def test_a_tensor_with_any_key_has_its_own_statistics(visit: Visit, tree: httpx.Client) -> None:
    page = opened(visit, HERE)
    panel = page.get_by_role("region", name="The chosen tensor")
    grid = page.get_by_role("treegrid", name="Tensors")
    page.get_by_role("button", name="Open all").click()
    grid.locator(".grid-body .grid-row").first.focus()
    page.keyboard.press("End")
    for elements, rows in ((6, 1), (5, 2), (4, 2), (3, 1)):
        page.keyboard.press("Enter")
        expect(panel).to_contain_text(f"Elements{elements}")
        expect(panel).to_contain_text("Mean1")
        for _ in range(rows):
            page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(panel).to_contain_text("1 NaN and 0 infinite elements")


def test_the_map_leads_into_branches(visit: Visit, tree: httpx.Client) -> None:
    page = opened(visit, HERE)
    expect(page.get_by_role("img", name=re.compile("Map of 92.9 kB: layers 83 %, embed 17 %"))).to_be_visible()
    page.locator("#map g").first.click()
    expect(page.get_by_role("img", name=re.compile(r"Map of 76.8 kB: 0 3 %"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("layers"))).to_have_attribute("aria-selected", "true")
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.locator("#way")).to_have_text("All, 92.9 kB")


def test_a_selection_is_shown_as_one_types_and_is_what_is_downloaded(visit: Visit, tree: httpx.Client) -> None:
    page = opened(visit, HERE)
    page.get_by_label("Select keys").fill("mlp")
    page.get_by_label("Leave out").fill("re:.*[.][12][0-9][.].*")
    told = page.locator("#told")
    expect(told).to_contain_text("10 of 67 tensors match include=*mlp* exclude=re:.*[.][12][0-9][.].*: 12.8 kB")
    expect(page.locator("#grid")).to_have_attribute("aria-rowcount", "22")
    page.get_by_label("Dtype").select_option("bfloat16")
    page.get_by_label("Format").select_option("safetensors")
    expect(page.get_by_label("Device")).to_be_disabled()
    link = page.locator("#download")
    link.scroll_into_view_if_needed()
    expect(link).to_have_text(re.compile(r"Download [\d.]+ kB"))
    with page.expect_download() as download:
        link.click()
    content = Path(download.value.path()).read_bytes()
    assert link.text_content() == f"Download {len(content) / 1000:.3g} kB"
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert {key for key in header if key != "__metadata__"} == {f"layers.{n}.mlp.weight" for n in range(10)}
    page.get_by_label("Select keys").fill("nothing*")
    expect(told).to_contain_text("none of the 67 keys matches include=nothing*")
    expect(link).to_be_hidden()
    page.get_by_label("Select keys").fill("re:(")
    expect(told).to_contain_text("missing )")
    page.get_by_label("Component", exact=True).select_option("optimizer_state_dict")
    expect(told).to_contain_text("6 of 6 tensors are selected")


def test_lines_load_what_is_selected_whatever_the_names_are(full: Server, tree: httpx.Client, tmp_path: Path) -> None:
    with full.client() as http:
        base = full.base_url
        asked = [("hostile/names", number + 1, name, ["weight"]) for number, name in enumerate(HOSTILE)]
        asked += [
            (MODEL, 3, COMPONENT, ["a[[]0]*?", "two?lines", "[r]e:.*", "lay*.1.*", "it's $HOME `id` \\ \u202e é"])
        ]
        found = [
            http.get(
                f"/models/{model}/checkpoints/{version}/selection.json",
                params={"component": component, "include": include, "device": "cpu", "base": base},
            )
            .raise_for_status()
            .json()
            for model, version, component, include in asked
        ]
    for line in (line for each in found for line in (each["curl"], each["cli"], each["python"])):
        assert all(char.isprintable() or char == "\n" for char in line)
    files = []
    for number, each in enumerate(found):
        folder = tmp_path / str(number)
        folder.mkdir()
        pulled = subprocess.run(
            ["bash", "-c", each["curl"].replace("curl", "curl -sS --noproxy '*'", 1)],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        assert pulled.returncode == 0, (each["curl"], pulled.stderr)
        files += folder.glob("*.pt")
        # The words of the command line, as a shell has them.
        words = subprocess.run(
            ["bash", "-c", f"stateroom() {{ printf '%s\\0' \"$@\"; }}; {each['cli']}"], capture_output=True, check=True
        )
        ran = (
            run_program(
                "stateroom._cli.main", words.stdout.decode().split("\0")[:-1], server_environment({}), cwd=folder
            )
            if number in {3, 7}
            else None
        )
        assert ran is None or ran.returncode == 0, ran
        assert words.stdout.decode().split("\0")[4] == f"--component={asked[number][2]}"
    assert [list(torch.load(file)) for file in files[:7]] == [["weight"]] * 7
    expected = ["layers.1.attention.weight", "layers.1.mlp.weight", "a[0]*?", "re:.*", "two\nlines"]
    assert list(torch.load(files[7])) == expected
    code = "\n".join(
        f"{each['python']}\nassert list(weights) == {keys!r}"
        for each, keys in zip(found, [["weight"]] * 7 + [expected], strict=True)
    )
    ran = run_script(code)
    assert ran.returncode == 0, ran.stderr


def test_a_lineage_leads_to_what_is_there(visit: Visit, tree: httpx.Client) -> None:
    page = opened(visit, HERE)
    lineage = page.get_by_role("region", name="Lineage")
    expect(lineage).to_contain_text("trashed")
    expect(lineage.get_by_role("link")).to_have_count(2)
    lineage.get_by_role("link", name=f"{MODEL}@4, epoch 7").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{MODEL}@4")
    page.get_by_role("link", name="Previous version, 3").click()
    page.get_by_role("link", name="Previous version, 1").click()
    expect(page).to_have_url(re.compile("/checkpoints/1$"))
    page.get_by_role("link", name="Next version, 3").click()
    expect(page).to_have_url(re.compile("/checkpoints/3$"))
    page.get_by_label("Compare with").fill("latest")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("What changed from 4 to 3")


def test_what_a_file_says_is_text_in_the_tree(visit: Visit) -> None:
    for number, name in enumerate(HOSTILE):
        page = opened(visit, f"/models/hostile/names/checkpoints/{number + 1}?component=state")
        row = page.locator(".grid-body .grid-row").last
        row.click()
        expect(page.locator("#panel .pairs").first).to_contain_text("Elements")
        assert "owned" not in page.title(), name
        assert "\u202e" not in page.inner_text("body")
        assert page.evaluate("document.querySelectorAll('script:not([src]), [onmouseover]').length") == 0
        assert page.evaluate("[...document.links].every(link => /^https?:$/.test(link.protocol))")


def test_a_copy_button_copies_the_line(visit: Visit, tree: httpx.Client) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = opened(visit, HERE)
    page.get_by_role("button", name="Copy the line for curl").click()
    expect(page.locator("[data-copies=line-curl]")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#line-curl").text_content()
    assert f"{visit.base_url}/v1{HERE}/state_dict?component={COMPONENT}" in copied


def test_without_scripts_keys_come_in_pages(browser: Browser, full: Server) -> None:
    many = {f"layer.{number}.weight": torch.ones(1) for number in range(250)}
    file = io.BytesIO()
    torch.save({"a": many, "b": {"w": torch.ones(1)}}, file)
    with full.client() as http:
        put(http, "tests/pages-of-keys", file.getvalue())
    with visiting(browser, full.base_url, scripts=False) as visit:
        page = visit.go("/models/tests/pages-of-keys/checkpoints/1")
        expect(page.locator("#plain tbody tr")).to_have_count(100)
        expect(page.locator("#selection")).to_be_hidden()
        for _ in range(2):
            page.get_by_role("link", name="Later tensors").click()
        expect(page.locator("#plain tbody tr")).to_have_count(50)
        expect(page.locator("#plain tbody tr").last).to_contain_text("layer.249.weight")
        page.get_by_role("link", name="b", exact=True).click()
        expect(page.locator("#plain tbody tr")).to_have_count(1)
        expect(page.locator("#line-curl")).to_contain_text("component=b")
        beyond = visit.go("/models/tests/pages-of-keys/checkpoints/1?component=b&start=5")
        expect(beyond.locator("#plain")).to_contain_text("There are only 1 tensors here")
        expect(visit.go("/models/tests/pages-of-keys/checkpoints/1?component=c").locator("main")).to_contain_text(
            "has no component 'c'"
        )


def test_the_page_of_10_000_keys_is_light_and_scrolls(browser: Browser, fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    keys = [f"model.layers.{n // 200}.experts.{n % 200}.weight" for n in range(10_000)]
    file = io.BytesIO()
    torch.save({key: torch.full((1,), 1.0) for key in keys}, file)
    with server.client() as http:
        put(http, "bench/keys", file.getvalue())
    with visiting(browser, server.base_url) as visit:
        page = opened(visit, "/models/bench/keys/checkpoints/1")
        kinds = ["navigation", "resource"]
        entries = page.evaluate(
            "kinds => kinds.flatMap(kind => performance.getEntriesByType(kind)).map(e => e.toJSON())", kinds
        )
        assert sum(entry["transferSize"] for entry in entries) < 200_000, json.dumps(entries, indent=1)
        assert sum("tensors.json" in entry["name"] for entry in entries) == 1
        page.get_by_role("button", name="Open all").click()
        grid = page.locator("#grid")
        expect(grid).to_have_attribute("aria-rowcount", re.compile(r"2\d{4}"))
        grid.evaluate("grid => grid.scrollTop = grid.scrollHeight")
        expect(grid.get_by_text("weight")).not_to_have_count(0)
        expect(grid.locator(f'[aria-rowindex="{grid.get_attribute("aria-rowcount")}"]')).to_be_visible()
        assert grid.locator(".grid-row").count() < 80
        page.get_by_label("Select keys").fill("*.experts.7.*")
        expect(page.locator("#told")).to_contain_text("50 of 10,000 tensors match")
    assert visit.errors == visit.elsewhere == []


@long
@needs_axe
@pytest.mark.parametrize(("size", "theme"), looks(DESKTOP, "dark"))
def test_axe_finds_nothing(visit: Visit, tree: httpx.Client, size: tuple[int, int], theme: str) -> None:
    visit.look(size, theme)
    page = opened(visit, HERE)
    page.locator(".grid-body .grid-row").nth(1).click()
    expect(page.locator("#panel .pairs").first).to_contain_text("Elements")
    assert axe_findings(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
