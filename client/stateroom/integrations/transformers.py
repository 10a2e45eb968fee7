"""transformers: each checkpoint of a Trainer is pushed to a server, and training goes on from there.

    pushing = StateroomCallback(model)
    trainer = Trainer(..., callbacks=[pushing])
    trainer.train(resume_from_checkpoint=pushing.resume_from("latest", trainer.args))

Tried with transformers 5.24.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._checkpoint import Checkpoint
from .._errors import CheckpointNotFound, ModelNotFound
from .._model import Model
from .._origins import BY_ITSELF
from .._query import Ref

try:
    from accelerate.utils import broadcast_object_list
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        f"stateroom.integrations.transformers needs transformers ({error}): pip install 'transformers[torch]'"
    ) from error


class StateroomCallback(TrainerCallback):
    """Uploads the folder of each checkpoint that a Trainer saves, from the process that writes it.

    The server reads epoch, step, loss and metrics in the folder's ``trainer_state.json``.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._resumed: Checkpoint | None = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        self._model.upload(folder, parent=BY_ITSELF if self._resumed is None else self._resumed)
        self._resumed = None

    def resume_from(self, ref: Ref, args: Any) -> str | None:
        """Download a checkpoint into a folder below ``output_dir`` of the TrainingArguments, for
        ``trainer.train(resume_from_checkpoint=...)``. Return None if there is no such checkpoint, as in the first run
        of a job. The checkpoint is the ``parent`` of the next one. All processes call it; one a machine downloads.
        """
        version = self._find(ref) if args.process_index == 0 else None
        version = broadcast_object_list([version])[0]
        if version is None:
            return None
        checkpoint = self._model.checkpoint(version)
        folder = Path(args.output_dir, f"stateroom-v{checkpoint.version}")
        with args.main_process_first(desc="download from Stateroom"):
            if not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                self._model.download(checkpoint, folder)
        self._resumed = checkpoint
        return str(folder)

    def _find(self, ref: Ref) -> int | None:
        try:
            return self._model.checkpoint(ref).version
        except (ModelNotFound, CheckpointNotFound):
            return None
