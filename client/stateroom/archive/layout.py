"""How an export lies on the disk.

FOLDER/README.md
FOLDER/stateroom-export.json            marks the folder
FOLDER/vision/resnet50/model.json       the model: aliases, the meaning of best
FOLDER/vision/resnet50/12/              a checkpoint: its files, and at last
FOLDER/vision/resnet50/12/checkpoint.json
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from .._checkpoint import Checkpoint
from .._download.atomic_file import appearing
from .._errors import StateroomError

MARK = "stateroom-export.json"
MODEL = "model.json"
CHECKPOINT = "checkpoint.json"
FILES = "files"
"""The folder of a checkpoint that is a folder itself."""

VERSION = 1

README = """\
# An export of a Stateroom server

Each folder NAMESPACE/MODEL/VERSION is one checkpoint. Its files are what was uploaded: load a `.pt` file with
`torch.load`, a `.safetensors` file with `safetensors.torch.load_file`. `checkpoint.json` holds its epoch, loss,
metrics, tags, and the size and SHA-256 of each file; `model.json` the model's aliases. Nothing else is needed.

`stateroom import FOLDER` stores all of it on a server again.
"""

_PIECE = 1024 * 1024
_LEFT_OUT = ("deleted_at", "deleted_by", "deleted_reason", "purged_at", "offline", "new_bytes")


def begin(folder: Path) -> None:
    """Mark a folder as an export. Raises StateroomError for one that holds something else."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARK).exists():
        if any(folder.iterdir()):
            raise StateroomError(f"{folder} holds something else: export to a new folder, or to an earlier export")
        (folder / "README.md").write_text(README, encoding="utf-8")
        write_json(folder / MARK, {"version": VERSION})


def is_export(folder: Path) -> bool:
    """Tell whether a folder is an export. Raises StateroomError for one of a newer client."""
    if not (folder / MARK).is_file():
        return False
    version = read_json(folder / MARK).get("version")
    if version != VERSION:
        raise StateroomError(f"{folder} is an export of version {version!r}; this client reads version {VERSION}")
    return True


def models_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and the folder of each model of an export, in order."""
    for file in sorted(folder.glob(f"*/*/{MODEL}")):
        yield f"{file.parent.parent.name}/{file.parent.name}", file.parent


def checkpoints_in(model: Path) -> Iterator[tuple[int, Path]]:
    """Yield the version and the folder of each checkpoint that is whole, oldest first."""
    found = (file.parent for file in model.glob(f"*/{CHECKPOINT}") if file.parent.name.isdecimal())
    for folder in sorted(found, key=lambda each: int(each.name)):
        yield int(folder.name), folder


def document_of(checkpoint: Checkpoint, files: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``checkpoint.json`` says of a checkpoint and its files."""
    facts = {name: value for name, value in asdict(checkpoint).items() if name not in _LEFT_OUT}
    return {**facts, "files": dict(files)}


def facts_of(path: Path) -> dict[str, Any]:
    """Return the size and the SHA-256 of a file."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            sha256.update(piece)
    return {"bytes": path.stat().st_size, "sha256": sha256.hexdigest()}


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the relative path, with slashes, and the path of each file below a folder, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document, which appears when it is complete and durable."""
    with appearing(path) as file:
        file.write(json.dumps(document, indent=2, default=_as_text).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """Read a document. Raises StateroomError for a file that is not a JSON object."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise StateroomError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise StateroomError(f"{path} is not a JSON object")
    return document


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
