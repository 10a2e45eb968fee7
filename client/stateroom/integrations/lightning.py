"""Lightning: checkpoints of a Trainer, kept by a server.

    Trainer(plugins=[StateroomCheckpointIO(model)], callbacks=[StateroomMetrics(), ModelCheckpoint(...)])

Tried with lightning 2.6.6.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._client import Client
from .._errors import InvalidRequest
from .._model import Model
from ._files import SCHEME, in_slot, parse

try:
    from lightning.pytorch import Callback
    from lightning.pytorch.plugins.io import CheckpointIO
except ImportError as error:
    raise ImportError(f"stateroom.integrations.lightning needs lightning ({error}): pip install lightning") from error

METRICS = "stateroom_metrics"
"""The key under which a checkpoint on its way to the server carries the metrics."""


class StateroomCheckpointIO(CheckpointIO):
    """Saves, loads and removes a Trainer's checkpoints on a server, as its plugin.

    A checkpoint is in the slot that has the name of its file: that of ``checkpoints/last.ckpt`` in the slot
    ``last.ckpt`` of ``model`` and its run. Without a ``model``, paths have to name it, as
    ``stateroom://namespace/name/RUN/last.ckpt`` does, on the server of STATEROOM_URL.
    """

    def __init__(self, model: Model | None = None) -> None:
        self._model = model

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save a checkpoint, with the metrics of StateroomMetrics, or the one that a ModelCheckpoint monitors."""
        if storage_options is not None:
            raise TypeError("StateroomCheckpointIO takes no storage_options; pass a model to it")
        model, slot = self._place(path)
        kept = {key: value for key, value in checkpoint.items() if key != METRICS}
        model.save(kept, slot=slot, metrics=checkpoint.get(METRICS) or _monitored(checkpoint))

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> Any:
        """Load a checkpoint, with ``weights_only=True`` unless told otherwise. Raises FileNotFoundError."""
        model, slot = self._place(path)
        checkpoint = in_slot(model, slot)
        if checkpoint is None:
            raise FileNotFoundError(f"{model!r} has no checkpoint in the slot {slot!r}")
        return model.load(checkpoint, map_location, weights_only=weights_only is not False)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Move a checkpoint to the trash, if it is there."""
        model, slot = self._place(path)
        checkpoint = in_slot(model, slot)
        if checkpoint is not None:
            model.delete(checkpoint)

    def _place(self, path: str | os.PathLike[str]) -> tuple[Model, str]:
        """Return the model and the slot of a path."""
        text = os.fspath(path)
        if text.startswith(SCHEME):
            name = parse(text)
            if name.slot is None:
                raise InvalidRequest(f"{text!r} names no file, as {SCHEME}{name.model}/RUN/last.ckpt does")
            model, slot = self._model or name.model_of(Client()), name.slot
            if (name.model, name.run) != (model.name, model.run):
                raise InvalidRequest(f"{text!r} is not in {model!r}, which was passed to StateroomCheckpointIO")
            return model, slot
        if self._model is None:
            raise InvalidRequest(f"{text!r} names no model: pass one to StateroomCheckpointIO, or use {SCHEME}")
        return self._model, Path(text).name


class StateroomMetrics(Callback):
    """Gives StateroomCheckpointIO all metrics that were logged, as a callback of the same Trainer."""

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint[METRICS] = {name: float(value) for name, value in trainer.callback_metrics.items()}


def _monitored(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores that the ModelCheckpoints of a Trainer gave this checkpoint, by the names of their metrics."""
    states = [state for state in checkpoint.get("callbacks", {}).values() if isinstance(state, Mapping)]
    scores = {state.get("monitor"): state.get("current_score") for state in states}
    return {name: float(score) for name, score in scores.items() if name is not None and score is not None}
