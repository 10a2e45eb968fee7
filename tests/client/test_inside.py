"""Looking inside from Python and in a notebook: differences, statistics, scans."""

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from stateroom import Checkpoint, Client, Diff, InvalidRequest, Model, NoKeysMatched, Report, Stats, TensorForm
from stateroom._progress import progress_of


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


OLD = {"a": randn(40, 50, seed=1), "b": randn(40, 50, seed=2), "frozen": randn(9, 9, seed=3), "gone": torch.ones(2)}
NEW = {"a": OLD["a"] + 0.001, "b": -OLD["b"], "frozen": OLD["frozen"], "new<b>": torch.tensor([math.nan, 1.0, 0.0])}


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    model = client.model(model_name)
    model.save({"model_state_dict": OLD}, epoch=1)
    model.save({"model_state_dict": NEW}, epoch=2, scan=True)
    return model


def test_a_diff_lists_what_changed_most_first(model: Model, client: Client, model_name: str) -> None:
    found = model.diff(1, "latest")
    assert isinstance(found, Diff)
    assert (found.base, found.other) == (f"{model_name}@1", f"{model_name}@2")
    assert found.summary == {"changed": 2, "moved": 0, "added": 1, "removed": 1, "same": 1}
    assert {item.max_abs for item in found} == {None}
    numeric = model.diff(1, 2, numeric=True)
    assert [item.key for item in numeric.of("changed")] == ["b", "a"]
    (a,) = [item for item in numeric if item.key == "a"]
    assert a.base == a.other == TensorForm("float32", (40, 50), 8000)
    assert a.max_abs == pytest.approx(float((NEW["a"].double() - OLD["a"].double()).abs().max()))
    assert numeric.of("changed")[0].relative_l2 == pytest.approx(2.0)
    assert numeric.of("changed")[0].cosine == pytest.approx(-1.0)
    assert str(found) == f"{model_name}@1 -> {model_name}@2: 2 changed, 1 added, 1 removed, 1 same"

    other = client.model(f"{model_name}-other")
    checkpoint = other.save({"a": OLD["a"].clone()})
    for ref in (checkpoint, f"{other.name}@latest"):
        assert model.diff(1, ref).summary["same"] == 1
    with pytest.raises(InvalidRequest):
        model.diff(checkpoint, 1)


def test_statistics_are_those_of_torch(model: Model) -> None:
    found = model.stats("latest")
    assert isinstance(found, Stats)
    assert [each.key for each in found] == list(NEW)
    a = found.tensors[0]
    wide = NEW["a"].double()
    assert (a.component, a.shape, a.count) == ("model_state_dict", (40, 50), 2000)
    assert (a.min, a.max) == (float(wide.min()), float(wide.max()))
    assert a.std == pytest.approx(float(wide.std()))
    assert a.histogram is not None
    assert sum(a.histogram.counts) == 2000
    assert [each.key for each in found if not each.is_finite] == ["new<b>"]
    assert [each.key for each in model.stats(2, include=["[ab]"])] == ["a", "b"]
    with pytest.raises(NoKeysMatched):
        model.stats(2, include="nothing")


def test_a_save_with_a_scan_is_looked_through(model: Model) -> None:
    for event in model.events(follow=True, kinds="checkpoint-nonfinite"):
        assert (event.version, event.detail) == (2, {"nonfinite_tensors": 1})
        break
    assert model.checkpoint(2).nonfinite_tensors == 1
    assert model.checkpoint(1).nonfinite_tensors is None
    assert [each.version for each in model.checkpoints(where={"nonfinite_tensors.gt": 0})] == [2]


def test_in_a_notebook_results_are_tables_without_markup_of_others(model: Model) -> None:
    report = Report("a/b@1", matched_keys=("<i>",), missing_keys=tuple(map(str, range(9))))
    checkpoint = model.update(2, tags={"<script>": "\x1b[2J"}, metrics={"acc": 0.5})
    assert isinstance(checkpoint, Checkpoint)
    for shown in (model, checkpoint, report, model.diff(1, 2, numeric=True), model.stats(2)):
        html = shown._repr_html_()
        assert html.startswith("<div>")
        assert html.endswith("</div>")
        for markup in ("<b>", "<i>", "<script>", "\x1b"):
            assert markup not in html
    assert "new&lt;b&gt;" in model.diff(1, 2)._repr_html_()
    assert "<svg" in model.stats(2)._repr_html_()


def test_a_notebook_has_a_progress_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ipython = ModuleType("IPython")
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    ipython.get_ipython = lambda: None
    assert progress_of(None) is None
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    assert progress_of(None) is not None
    assert progress_of(False) is None
