"""A Trainer of transformers pushes its checkpoints to a server, and goes on from one of them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stateroom import Client, Model
from tests.support.docs import python_of

transformers = pytest.importorskip("transformers", reason="transformers is not installed: make integrations")
from stateroom.integrations.transformers import StateroomCallback  # noqa: E402 - it may be missing

pytestmark = pytest.mark.filterwarnings("ignore")
"""transformers warns of parts of torch that it uses."""


def network() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_embd=8, n_head=1, vocab_size=16, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def data() -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    rows = torch.randint(0, 16, (8, 8))
    return [{"input_ids": row, "labels": row} for row in rows]


def trainer_of(model: Model, output_dir: Path, epochs: int, **arguments: Any) -> tuple[Any, StateroomCallback]:
    pushing = StateroomCallback(model)
    given = transformers.TrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        save_strategy="epoch",
        eval_strategy="epoch",
        logging_strategy="epoch",
        lr_scheduler_type="constant",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **arguments,
    )
    trainer = transformers.Trainer(network(), given, train_dataset=data(), eval_dataset=data(), callbacks=[pushing])
    return trainer, pushing


def weights(net: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def test_every_checkpoint_is_pushed_with_its_metrics(model: Model, tmp_path: Path) -> None:
    trainer, _ = trainer_of(model, tmp_path, epochs=3, save_total_limit=1)
    trainer.train()
    newest, *others = model.checkpoints()
    assert [(each.epoch, each.step, each.run) for each in (newest, *others)] == [
        (3, 6, "first"),
        (2, 4, "first"),
        (1, 2, "first"),
    ]
    assert newest.loss == pytest.approx(trainer.state.log_history[-3]["loss"])
    assert newest.metrics["eval_loss"] == pytest.approx(trainer.state.log_history[-2]["eval_loss"])
    assert {"model", "optimizer"} <= {component.name for component in newest.components}
    state = model.state_dict(newest, component="model")
    assert all(torch.equal(state[key], value) for key, value in weights(trainer.model).items() if key in state)
    assert "training_args.bin" in [each.path for each in newest.files()]


def test_training_goes_on_as_if_it_had_not_stopped(model: Model, client: Client, tmp_path: Path) -> None:
    whole, _ = trainer_of(client.model(model.name, run="whole"), tmp_path / "whole", epochs=4)
    whole.train()

    trainer, pushing = trainer_of(model, tmp_path / "before", epochs=2)
    assert pushing.resume_from("latest", trainer.args) is None
    trainer.train()
    last = model.checkpoint("latest")

    trainer, pushing = trainer_of(model, tmp_path / "after", epochs=4)
    folder = pushing.resume_from("latest", trainer.args)
    assert folder == str(tmp_path / "after" / f"stateroom-v{last.version}")
    trainer.train(resume_from_checkpoint=folder)
    assert trainer.state.global_step == 8
    for key, value in weights(whole.model).items():
        assert torch.equal(weights(trainer.model)[key], value), key
    assert [each.parent for each in model.checkpoints(order="version")] == [None, None, str(last), None]


def test_a_checkpoint_is_downloaded_once(model: Model, tmp_path: Path) -> None:
    trainer, pushing = trainer_of(model, tmp_path, epochs=1)
    trainer.train()
    folder = Path(pushing.resume_from("latest", trainer.args) or "")
    (folder / "mark").touch()
    assert pushing.resume_from("epoch:1", trainer.args) == str(folder)
    assert (folder / "mark").exists()


def test_the_code_in_the_documentation_runs(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = python_of("docs/frameworks.md", "transformers").replace("http://127.0.0.1:8765", server.base_url)
    names: dict[str, Any] = {"net": network(), "train_dataset": data(), "eval_dataset": data()}
    exec(compile(code, "docs/frameworks.md", "exec"), names)
    assert names["trainer"].state.global_step > 0
