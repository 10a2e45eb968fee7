"""Ignite: a save handler for its Checkpoint.

    Checkpoint({"model": net, "optimizer": optimizer}, StateroomSaver(model), n_saved=2, score_name="val_acc", ...)

Tried with pytorch-ignite 0.5.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import _torch
from .._model import Model
from ._files import in_slot

try:
    from ignite.handlers.checkpoint import BaseSaveHandler
except ImportError as error:
    raise ImportError(
        f"stateroom.integrations.ignite needs pytorch-ignite ({error}): pip install pytorch-ignite"
    ) from error


class StateroomSaver(BaseSaveHandler):
    """Saves checkpoints in slots of ``model`` and its run, which have the names of the files, and removes them.

    The score is a metric of the checkpoint. In a distributed job, rank 0 acts.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        score_name = (metadata or {}).get("score_name")
        metrics = {} if metadata is None or score_name is None else {score_name: metadata["priority"]}
        self._model.save(checkpoint, slot=filename, metrics=metrics)

    def remove(self, filename: str) -> None:
        """Move a checkpoint to the trash."""
        checkpoint = in_slot(self._model, filename) if _torch.rank() == 0 else None
        if checkpoint is not None:
            self._model.delete(checkpoint)
