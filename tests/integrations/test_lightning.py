"""Lightning's Trainer saves to a server, keeps what it promises to keep, and goes on from there."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stateroom import InvalidRequest, Model, UnsafeGlobals
from tests.support.docs import python_of

L = pytest.importorskip("lightning", reason="Lightning is not installed: make integrations")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402 - it may be missing
from lightning.pytorch.plugins.io import AsyncCheckpointIO  # noqa: E402 - it may be missing

from stateroom.integrations.lightning import StateroomCheckpointIO, StateroomMetrics  # noqa: E402 - it may be missing

pytestmark = pytest.mark.filterwarnings("ignore")
"""Lightning warns of small data sets, of few workers, and of parts of torch that it uses."""

SCORES = [0.5, 0.2, 0.9, 0.3]
"""The val_loss of each epoch."""


class Module(L.LightningModule):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(width, 2)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", SCORES[self.current_epoch])
        self.log("val_acc", 1 - SCORES[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)


def fit(
    dirpath: str,
    plugins: list[Any],
    epochs: int,
    root: Path,
    ckpt_path: str | None = None,
    trainer_options: dict[str, Any] | None = None,
    **keeping: Any,
) -> tuple[Any, Module]:
    data = DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4)
    keep = ModelCheckpoint(
        dirpath=dirpath, **{"monitor": "val_loss", "save_top_k": 2, "save_last": True, "filename": "{epoch}", **keeping}
    )
    trainer = L.Trainer(
        max_epochs=epochs, callbacks=[keep, StateroomMetrics()], plugins=plugins, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=root, **(trainer_options or {}),
    )  # fmt: skip
    module = Module()
    trainer.fit(module, data, data, ckpt_path=ckpt_path)
    return trainer, module


def files(model: Model) -> dict[str | None, int | None]:
    return {each.slot: each.epoch for each in model.checkpoints()}


def check_last(model: Model, module: Module) -> None:
    last = next(iter(model.checkpoints(where={"slot": "last.ckpt"})))
    assert torch.equal(model.load(last)["state_dict"]["layer.weight"], module.layer.weight)


def test_the_best_and_the_last_are_kept_with_their_metrics(model: Model, tmp_path: Path) -> None:
    _, module = fit(str(tmp_path / "checkpoints"), [StateroomCheckpointIO(model)], 4, tmp_path)
    assert files(model) == {"epoch=1.ckpt": 1, "epoch=3.ckpt": 3, "last.ckpt": 3}
    assert model.checkpoint("min:val_loss").epoch == 1
    best = model.checkpoint("max:val_acc")
    assert best.metrics == pytest.approx({"val_loss": 0.2, "val_acc": 0.8})
    assert (best.epoch, best.step, best.run) == (1, 4, "first")
    assert "stateroom_metrics" not in model.load(best)
    check_last(model, module)
    assert not (tmp_path / "checkpoints").exists()


def test_the_monitored_metric_comes_without_a_callback_too(model: Model) -> None:
    io = StateroomCheckpointIO(model)
    scores = {"ModelCheckpoint{...}": {"monitor": "val_loss", "current_score": torch.tensor(0.25)}, "Other": {"a": 1}}
    io.save_checkpoint({"state_dict": {"a": torch.ones(2)}, "callbacks": scores}, "a/b.ckpt")
    assert model.checkpoint("latest").metrics == {"val_loss": 0.25}


@pytest.mark.parametrize("by_url", [False, True])
def test_training_goes_on_in_another_process(by_url: bool, model: Model, tmp_path: Path) -> None:
    dirpath = f"stateroom://{model.name}/first" if by_url else str(tmp_path / "checkpoints")
    fit(dirpath, [StateroomCheckpointIO(model)], 2, tmp_path)
    last = next(iter(model.checkpoints(where={"slot": "last.ckpt"})))
    resumed, module = fit(dirpath, [StateroomCheckpointIO(model)], 4, tmp_path, ckpt_path=f"{dirpath}/last.ckpt")
    assert (resumed.current_epoch, resumed.global_step) == (4, 8)
    check_last(model, module)
    later = [each for each in (*model.checkpoints(), *model.checkpoints(trash=True)) if each.version > last.version]
    assert min(later, key=lambda each: each.version).parent == str(last)


def test_paths_may_name_the_model(model: Model, tmp_path: Path) -> None:
    url = f"stateroom://{model.name}/first"
    trainer, module = fit(url, [StateroomCheckpointIO()], 2, tmp_path)
    assert files(model) == {"epoch=0.ckpt": 0, "epoch=1.ckpt": 1, "last.ckpt": 1}
    assert trainer.checkpoint_callback.best_model_path == f"{url}/epoch=1.ckpt"
    loaded = Module.load_from_checkpoint(f"{url}/last.ckpt", weights_only=False)
    assert torch.equal(loaded.layer.weight, module.layer.weight)


def test_the_file_system_is_enough(model: Model, tmp_path: Path) -> None:
    _, module = fit(f"stateroom://{model.name}/first", [], 4, tmp_path)
    assert files(model) == {"epoch=1.ckpt": 1, "epoch=3.ckpt": 3, "last.ckpt": 3}
    check_last(model, module)


def test_checkpoints_are_saved_in_the_background(model: Model, tmp_path: Path) -> None:
    _, module = fit(str(tmp_path / "checkpoints"), [AsyncCheckpointIO(StateroomCheckpointIO(model))], 4, tmp_path)
    assert {"epoch=1.ckpt", "epoch=3.ckpt", "last.ckpt"} <= files(model).keys()
    check_last(model, module)


def test_what_cannot_be_saved_or_loaded_is_explained(model: Model) -> None:
    io = StateroomCheckpointIO(model)
    with pytest.raises(FileNotFoundError, match=r"has no checkpoint in the slot 'last.ckpt'"):
        io.load_checkpoint("checkpoints/last.ckpt")
    io.remove_checkpoint("checkpoints/last.ckpt")
    with pytest.raises(InvalidRequest, match="is not in Model"):
        io.load_checkpoint(f"stateroom://{model.name}/second/last.ckpt")
    with pytest.raises(InvalidRequest, match="names no model: pass one to StateroomCheckpointIO"):
        StateroomCheckpointIO().load_checkpoint("checkpoints/last.ckpt")
    with pytest.raises(TypeError, match="takes no storage_options"):
        io.save_checkpoint({}, "last.ckpt", storage_options={})
    io.save_checkpoint({"state_dict": {"a": torch.ones(2)}, "path": logging.Formatter()}, "own.ckpt")
    with pytest.raises(UnsafeGlobals, match=r"logging\.Formatter"):
        io.load_checkpoint("own.ckpt")
    assert isinstance(io.load_checkpoint("own.ckpt", weights_only=False)["path"], logging.Formatter)


def test_the_code_in_the_documentation_runs(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4)
    names = {"Classifier": Module, "train_loader": data, "val_loader": data}
    code = python_of("docs/frameworks.md", "Lightning").replace("http://127.0.0.1:8765", server.base_url)
    exec(compile(code, "docs/frameworks.md", "exec"), names)
    assert names["trainer"].current_epoch == 4


def test_several_processes_save_and_resume_one_checkpoint(model: Model, tmp_path: Path) -> None:
    several = {"strategy": "ddp_fork", "devices": 2}
    fit(str(tmp_path / "checkpoints"), [StateroomCheckpointIO(model)], 2, tmp_path, trainer_options=several)
    assert files(model) == {"epoch=0.ckpt": 0, "epoch=1.ckpt": 1, "last.ckpt": 1}
    # The first last.ckpt, and that in which a process that was forked hands its weights to its parent.
    assert {each.slot for each in model.checkpoints(trash=True)} == {"last.ckpt", ".temp.ckpt"}
    assert model.checkpoint("latest").version == 4
    last = str(tmp_path / "checkpoints/last.ckpt")
    fit(str(tmp_path), [StateroomCheckpointIO(model)], 3, tmp_path, ckpt_path=last, trainer_options=several)
    assert model.checkpoint("latest").epoch == 2
