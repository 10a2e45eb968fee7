"""accelerate: the whole state of an Accelerator as one checkpoint.

    save_state(accelerator, model, epoch=3)
    load_state(accelerator, model, "latest")

Tried with accelerate 1.15.0.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import SupportsFloat, SupportsInt

from .._checkpoint import Checkpoint
from .._model import Model
from .._query import Ref

try:
    from accelerate import Accelerator
    from accelerate.utils import broadcast_object_list
except ImportError as error:
    raise ImportError(
        f"stateroom.integrations.accelerate needs accelerate ({error}): pip install accelerate"
    ) from error


def save_state(
    accelerator: Accelerator,
    model: Model,
    *,
    epoch: SupportsInt | None = None,
    step: SupportsInt | None = None,
    loss: SupportsFloat | None = None,
    metrics: Mapping[str, SupportsFloat] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Checkpoint | None:
    """Save what ``accelerator.save_state`` writes, as a folder. All processes call it, and share a disk for temporary
    files; the main process gets the Checkpoint.
    """
    with _shared_folder(accelerator) as folder:
        accelerator.save_state(str(folder))
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:
            return None
        return model.upload(folder, epoch=epoch, step=step, loss=loss, metrics=metrics, tags=tags)


def load_state(accelerator: Accelerator, model: Model, ref: Ref) -> Checkpoint:
    """Load a checkpoint of ``save_state`` into the objects that the Accelerator has prepared. All processes call it."""
    with _shared_folder(accelerator) as folder:
        version = model.checkpoint(ref).version if accelerator.is_main_process else None
        checkpoint = model.checkpoint(broadcast_object_list([version])[0])
        if accelerator.is_main_process:
            model.download(checkpoint, folder / "state")
        accelerator.wait_for_everyone()
        accelerator.load_state(str(folder / "state"))
        return checkpoint


@contextmanager
def _shared_folder(accelerator: Accelerator) -> Iterator[Path]:
    """Make a temporary folder in the main process, for all."""
    made = tempfile.mkdtemp(prefix="stateroom-") if accelerator.is_main_process else None
    folder = Path(broadcast_object_list([made])[0])
    try:
        yield folder
    finally:
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            shutil.rmtree(folder)
