"""Exports read without Stateroom, and imports take them and what other tools have written; nothing is done twice."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stateroom import Checkpoint, Client, InvalidRequest, Model, ModelNotFound, StateroomError
from stateroom._cli.main import main
from stateroom.archive import export_models, import_folder
from stateroom.archive.importing import CREATED, ORIGIN
from tests.differential.equality import equal
from tests.support.server import Server


def checkpoint(epoch: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(epoch)
    return {"epoch": epoch, "loss": 1 / epoch, "model_state_dict": {"w": torch.randn(40, 40, generator=generator)}}


def write_pretrained(folder: Path, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    save_file({"w": torch.randn(30, generator=torch.Generator().manual_seed(seed))}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"hidden_size": 3}')


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


@pytest.fixture
def other(client: Client, model_name: str) -> Model:
    return client.model(f"{model_name[:100]}-again")


@pytest.fixture
def filled(model: Model, client: Client, tmp_path: Path) -> Model:
    """A model with one checkpoint of each kind: in parts, as a file, with a run, a folder; aliases and a pin."""
    first = model.save(checkpoint(1), metrics={"acc": 0.5}, tags={"by": "me"})
    torch.save(checkpoint(2), tmp_path / "second.pt")
    client.model(model.name, run="late").upload(tmp_path / "second.pt", parent=first)
    model.pin(2, reason="paper")
    write_pretrained(tmp_path / "pretrained")
    model.upload(tmp_path / "pretrained", tags={"kind": "folder"})
    model.save(checkpoint(3))
    model.delete(4)
    model.alias("prod", 2)
    model.set_best("max:acc")
    return model


def test_an_export_is_plain_files_that_say_what_they_are(client: Client, filled: Model, tmp_path: Path) -> None:
    done = export_models(client, tmp_path / "out", [filled.name])
    assert [(each.checkpoint, each.was_there) for each in done] == [
        (f"{filled.name}@{version}", False) for version in (1, 2, 3)
    ]
    root = tmp_path / "out" / filled.name
    assert json.loads((root / "model.json").read_text()) == {
        "model": filled.name,
        "best": "max:acc",
        "aliases": {"prod": 2},
    }
    [one] = (root / "1").glob("*.pt")
    assert equal(torch.load(one, weights_only=True), checkpoint(1))
    [two] = (root / "2").glob("*.pt")
    assert two.read_bytes() == (tmp_path / "second.pt").read_bytes()
    for path in (tmp_path / "pretrained").iterdir():
        assert (root / "3" / "files" / path.name).read_bytes() == path.read_bytes()
    said = json.loads((root / "2" / "checkpoint.json").read_text())
    assert (said["epoch"], said["loss"], said["run"], said["parent"]) == (2, 0.5, "late", f"{filled.name}@1")
    assert said["files"] == {
        two.name: {"bytes": two.stat().st_size, "sha256": hashlib.sha256(two.read_bytes()).hexdigest()}
    }


def test_an_export_goes_on_and_writes_nothing_twice(client: Client, filled: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    [first, *_] = export_models(client, out, [filled.name])
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")}
    broken = out / filled.name / "3"
    (broken / "checkpoint.json").unlink()  # as an interrupted export leaves it
    (broken / "files" / "config.json").write_text("half")
    filled.update(1, tags={"by": "her"})
    again = export_models(client, out, [filled.name])
    assert [each.was_there for each in again] == [True, True, False]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")} == written
    assert (broken / "files" / "config.json").read_text() == '{"hidden_size": 3}'
    assert json.loads((first.path / "checkpoint.json").read_text())["tags"] == {"by": "her"}


def test_an_export_is_imported_with_all_that_it_says(
    client: Client, filled: Model, other: Model, tmp_path: Path
) -> None:
    export_models(client, tmp_path / "out", [filled.name])
    done = import_folder(client, tmp_path / "out", other.name)
    assert [(each.source, each.checkpoint) for each in done] == [
        (f"{filled.name}@{version}", f"{other.name}@{version}") for version in (1, 2, 3)
    ]

    def shown(one: Checkpoint) -> tuple[object, ...]:
        tags = {name: value for name, value in one.tags.items() if name not in {ORIGIN, CREATED}}
        pin = one.pin and one.pin.reason
        return (one.run, one.epoch, one.step, one.loss, one.metrics, tags, one.format, one.components, one.aliases, pin)

    for version in (1, 2, 3):
        there, here = filled.checkpoint(version), other.checkpoint(version)
        assert shown(here) == shown(there)
        assert here.tags[CREATED] == there.created_at.isoformat()
    assert other.checkpoint(2).parent == f"{other.name}@1"
    assert other.checkpoint("best").version == 1
    assert equal(other.load(1), filled.load(1))
    assert equal(dict(other.state_dict(3)), dict(filled.state_dict(3)))
    again = import_folder(client, tmp_path / "out", other.name)
    assert [(each.checkpoint, each.was_there) for each in again] == [(each.checkpoint, True) for each in done]
    assert len(list(other.checkpoints())) == 3


def test_an_export_that_comes_back_to_its_server_is_there(client: Client, filled: Model, tmp_path: Path) -> None:
    export_models(client, tmp_path / "out", [filled.name])
    done = import_folder(client, tmp_path / "out")
    assert [(each.checkpoint, each.was_there) for each in done] == [(each.source, True) for each in done]
    assert len(list(filled.checkpoints())) == 3


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), "has changed"),
        (lambda path: path.unlink(), "is missing"),
    ],
    ids=["changed", "missing"],
)
def test_an_export_whose_bytes_have_changed_is_not_imported(
    client: Client, filled: Model, other: Model, tmp_path: Path, spoil: Callable[[Path], object], match: str
) -> None:
    export_models(client, tmp_path / "out", [filled.name])
    [file] = (tmp_path / "out" / filled.name / "2").glob("*.pt")
    spoil(file)
    with pytest.raises(StateroomError, match=match):
        import_folder(client, tmp_path / "out", other.name)
    assert [each.version for each in other.checkpoints()] == [1]


def test_an_export_names_no_file_outside_its_folder(client: Client, filled: Model, tmp_path: Path) -> None:
    export_models(client, tmp_path / "out", [filled.name])
    document = tmp_path / "out" / filled.name / "1" / "checkpoint.json"
    said = json.loads(document.read_text())
    said["files"] = {"../../../../second.pt": next(iter(said["files"].values()))}
    document.write_text(json.dumps(said))
    with pytest.raises(StateroomError, match="outside its folder"):
        import_folder(client, tmp_path / "out", "elsewhere/net")


def test_an_export_needs_a_folder_of_its_own_and_a_model_that_is_there(client: Client, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StateroomError, match="something else"):
        export_models(client, tmp_path)
    with pytest.raises(ModelNotFound):
        export_models(client, tmp_path / "out", ["nobody/nothing"])
    assert not (tmp_path / "out").exists()


def test_a_folder_of_files_is_imported_in_numerical_order_without_what_is_no_checkpoint(
    client: Client, model: Model, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    (root / "late").mkdir(parents=True)
    for epoch in (1, 2, 10):
        torch.save(checkpoint(epoch), root / f"epoch{epoch}.pt")
    torch.save(checkpoint(11), root / "late" / "last.ckpt")
    (root / "broken.pt").write_bytes(b"not a checkpoint")
    (root / "notes.txt").write_text("none either")
    (root / ".hidden").mkdir()
    torch.save(checkpoint(12), root / ".hidden" / "x.pt")
    write_pretrained(root / "checkpoint-500")
    done = import_folder(client, root, model.name)
    assert [(each.source, each.checkpoint) for each in done] == [
        ("broken.pt", None),
        ("checkpoint-500", f"{model.name}@1"),
        ("epoch1.pt", f"{model.name}@2"),
        ("epoch2.pt", f"{model.name}@3"),
        ("epoch10.pt", f"{model.name}@4"),
        ("late/last.ckpt", f"{model.name}@5"),
    ]
    assert "torch.save" in str(done[0].why)
    torch.save({**checkpoint(2), "more": torch.ones(5)}, root / "epoch2.pt")
    again = import_folder(client, root, model.name)
    assert [each.checkpoint for each in again if not each.was_there] == [None, f"{model.name}@6"]


def test_a_hugging_face_folder_is_one_checkpoint(client: Client, model: Model, tmp_path: Path) -> None:
    write_pretrained(tmp_path / "bert")
    [done] = import_folder(client, tmp_path / "bert", model.name)
    assert (done.source, done.checkpoint) == ("bert", f"{model.name}@1")
    assert model.checkpoint(1).format == "folder"


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_a_distributed_checkpoint_is_uploaded_as_it_is(client: Client, model: Model, tmp_path: Path) -> None:
    dcp = pytest.importorskip("torch.distributed.checkpoint", reason="this torch has no torch.distributed.checkpoint")
    state = {"model": {"w": torch.arange(100.0)}, "epoch": 3}
    dcp.save(state, checkpoint_id=tmp_path / "dcp")
    [done] = import_folder(client, tmp_path / "dcp", model.name)
    assert done.source == "dcp"
    assert model.checkpoint(1).format == "folder"
    assert equal(model.load(1), state)


def test_artifacts_of_mlflow_runs_bring_their_metrics(client: Client, model: Model, tmp_path: Path) -> None:
    for run, loss in (("aa11", 0.5), ("bb22", 0.25)):
        artifacts = tmp_path / "mlruns" / "0" / run / "artifacts" / "model" / "data"
        artifacts.mkdir(parents=True)
        torch.save(checkpoint(len(run)), artifacts / "model.pth")
        metrics = artifacts.parents[2] / "metrics"
        metrics.mkdir()
        (metrics / "val_loss").write_text(f"1700000000000 9.0 0\n1700000001000 {loss} 1\n1700000002000 nan 2\n")
    done = import_folder(client, tmp_path / "mlruns", model.name)
    assert [each.source for each in done] == [f"0/{run}/artifacts/model/data/model.pth" for run in ("aa11", "bb22")]
    found = sorted(model.checkpoints(), key=lambda each: each.version)
    assert [(each.run, each.metrics["val_loss"]) for each in found] == [("aa11", 0.5), ("bb22", 0.25)]


def test_what_cannot_be_imported_says_why(client: Client, model: Model, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="name the model"):
        import_folder(client, tmp_path)
    with pytest.raises(InvalidRequest, match="holds no checkpoint"):
        import_folder(client, tmp_path, model.name)
    with pytest.raises(InvalidRequest, match="not a folder"):
        import_folder(client, tmp_path / "none", model.name)


def test_the_commands_say_what_they_did(
    server: Server, filled: Model, other: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    options = ("--url", server.base_url)
    assert main(["export", filled.name, out, *options]) == 0
    assert f"{filled.name}@2" in capsys.readouterr().out
    assert main(["import", out, other.name, "--json", *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["checkpoint"] for each in said] == [f"{other.name}@{version}" for version in (1, 2, 3)]
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "bad.pt").write_bytes(b"bad")
    assert main(["import", str(tmp_path / "loose"), other.name, *options]) == 1
    assert "bad.pt" in capsys.readouterr().err
