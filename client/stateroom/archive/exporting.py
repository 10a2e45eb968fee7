"""Exports: models of a server as folders of plain files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._checkpoint import Checkpoint
from .._client import Client
from .._errors import InvalidRequest, ModelNotFound
from .._model import Model
from . import layout

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Exported:
    """A checkpoint of an export: its name, ``vision/resnet50@12``, its folder, and the ``bytes`` of its files.
    ``was_there`` if an earlier export had written it.
    """

    checkpoint: str
    path: Path
    bytes: int
    was_there: bool


def export_models(
    client: Client,
    folder: str | os.PathLike[str],
    models: Collection[str] = (),
    *,
    report: Callable[[Exported], None] | None = None,
) -> list[Exported]:
    """Write all checkpoints of ``models``, by default of all models that the token may read, to ``folder``: each as it
    was uploaded, with its numbers, metrics, tags and aliases as JSON. Checkpoints in the trash are left out.

    A later export keeps what an earlier one has written, also if it has been deleted on the server since, and brings
    its JSON up to date. ``report`` is called after each checkpoint. Raises StateroomError for a folder that holds
    something else, and ModelNotFound.
    """
    root = Path(folder)
    there = {each.name: each for each in client.models()}
    names = list(dict.fromkeys(models)) or list(there)
    for name in names:
        if name not in there:
            raise ModelNotFound(f"there is no model {name} that this token may read")
    layout.begin(root)
    done = []
    for name in names:
        for exported in _export(client.model(name, run=""), there[name].best, root):
            done.append(exported)
            if report is not None:
                report(exported)
    return done


def _export(model: Model, best: str, root: Path) -> Iterator[Exported]:
    if _MODEL.fullmatch(model.name) is None:
        raise InvalidRequest(f"{model.name!r} is not the name of a model")
    folder = root / model.name
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint in model.checkpoints(order="version"):
        yield _write(model, checkpoint, folder / str(checkpoint.version))
    aliases = {each.name: each.version for each in model.aliases() if each.version is not None}
    layout.write_json(folder / layout.MODEL, {"model": model.name, "best": best, "aliases": aliases})


def _write(model: Model, checkpoint: Checkpoint, folder: Path) -> Exported:
    """Write a checkpoint. Its JSON comes last: without it, the folder is begun anew."""
    written = _written(folder)
    if written is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _download(model, checkpoint, folder)
        files = {path: layout.facts_of(file) for path, file in layout.files_below(folder)}
    else:
        files = written
    layout.write_json(folder / layout.CHECKPOINT, layout.document_of(checkpoint, files))
    size = sum(file["bytes"] for file in files.values())
    return Exported(str(checkpoint), folder, size, was_there=written is not None)


def _written(folder: Path) -> dict[str, Any] | None:
    """Return the files that an earlier export has written and that have their sizes still; None if any is missing."""
    if not (folder / layout.CHECKPOINT).is_file():
        return None
    files: dict[str, Any] = layout.read_json(folder / layout.CHECKPOINT).get("files") or {}
    there = {path: file.stat().st_size for path, file in layout.files_below(folder)}
    return files if files and all(there.get(path) == file["bytes"] for path, file in files.items()) else None


def _download(model: Model, checkpoint: Checkpoint, folder: Path) -> None:
    if checkpoint.thinned_at is not None:  # only its state_dicts are left
        target = folder / layout.FILES
        target.mkdir()
        names = [each.name for each in checkpoint.components if each.kind == "state_dict"]
        for number, name in enumerate(names):
            path = target / f"{number}-{_UNSAFE.sub('_', name)[:100] or 'model'}.pt"
            model.download_state_dict(checkpoint, path, component=name)
    elif checkpoint.format == "folder":
        model.download(checkpoint, folder / layout.FILES)
    else:
        model.download(checkpoint, folder)
