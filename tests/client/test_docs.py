"""The examples of docs/client.md, run from top to bottom."""

import inspect
from pathlib import Path

import pytest
import torch

import stateroom
from tests.conftest import StartServer
from tests.support.docs import ROOT, blocks
from tests.support.measure import only_long

DOCUMENT = "docs/client.md"


@pytest.mark.parametrize("width", [pytest.param(16, id="small"), pytest.param(100_000, id="in-parts", marks=only_long)])
def test_the_tour_runs_and_prints_what_it_shows(
    width: int,
    fresh_server: StartServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also with a network that is sent in parts, as what has more than 4 MiB is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")  # for torch.hub
    torch.manual_seed(0)
    server = fresh_server()
    shown = [block.text for block in blocks(DOCUMENT) if block.language == "text"]
    code = "".join(block.text for block in blocks(DOCUMENT) if block.language == "python")
    code = code.replace("4, 16)", f"4, {width})").replace("(16, c", f"({width}, c")
    code = code.replace("http://127.0.0.1:8765", server.base_url)
    exec(compile(code, DOCUMENT, "exec"), {})
    assert "['stem.weight', 'stem.bias']" in (printed := capsys.readouterr().out)
    if width == 16:
        assert [text.partition("\n")[2] for text in shown if text.partition("\n")[2] not in printed] == []
    assert any("blocks" in each["route"] for each in server.requests) == (width > 16)
    assert {path.name for path in tmp_path.iterdir()} >= {"classifier.pt", "classifier-gpu.pt"}


def test_the_reference_names_every_method_and_every_error() -> None:
    text = (ROOT / DOCUMENT).read_text()
    expected = [
        f"{kind.__name__.lower()}.{name}("
        for kind in (stateroom.Client, stateroom.Model, stateroom.Checkpoint)
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_")
    ]
    exported = {name: getattr(stateroom, name) for name in stateroom.__all__}
    expected += [
        f"`{name}`" for name, kind in exported.items() if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    assert [name for name in expected if name not in text] == []
