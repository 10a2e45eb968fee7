"""The checkpoints in a folder that other tools have written: files and folders, in their order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".tar", ".bin", ".safetensors")
"""Ends of the names of checkpoint files."""

_OF_A_FOLDER = ("config.json", "trainer_state.json", "model_index.json", "adapter_config.json")
"""Files that make the folder around them one checkpoint, beside ``*.index.json``."""

_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Found:
    """A checkpoint: a file, or a folder of files. ``name`` is its place below the folder that is imported."""

    name: str
    path: Path
    run: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def checkpoints_below(root: Path) -> Iterator[Found]:
    """Yield the checkpoints of a folder: itself, if it is one; of an MLflow artifact root, those of each run; else what
    lies below it, numbers in names in numerical order.
    """
    runs = sorted((each for each in root.glob("**/artifacts") if each.is_dir()), key=_in_order)
    if root.name != "artifacts" and runs:
        for artifacts in runs:
            numbers = _metrics_of(artifacts.parent)
            for found in _below(artifacts, root):
                yield Found(found.name, found.path, artifacts.parent.name, numbers)
    else:
        yield from _below(root, root)


def _below(folder: Path, root: Path) -> Iterator[Found]:
    name = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name
    files = {each.name for each in folder.iterdir() if each.is_file()}
    if _is_one(files):
        yield Found(name, folder)
        return
    for entry in sorted(folder.iterdir(), key=_in_order):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _below(entry, root)
        elif entry.name.lower().endswith(CHECKPOINTS):
            yield Found(entry.relative_to(root).as_posix(), entry)


def _is_one(files: set[str]) -> bool:
    """Tell whether a folder of these files is one checkpoint, as torch.distributed.checkpoint or the tools of the
    Hugging Face Hub write it.
    """
    if ".metadata" in files and any(each.endswith(".distcp") for each in files):
        return True
    described = any(name in _OF_A_FOLDER or name.endswith(".index.json") for name in files)
    return described and any(name.lower().endswith(CHECKPOINTS) for name in files)


def _in_order(path: Path) -> list[tuple[int, int, str]]:
    """Return a key by which ``epoch-10`` comes after ``epoch-9``."""
    parts = _DIGITS.split(path.as_posix())
    return [(1, int(part), "") if number % 2 else (0, 0, part) for number, part in enumerate(parts)]


def _metrics_of(run: Path) -> dict[str, float]:
    """Return the last finite value of each metric that an MLflow run has kept: lines of time, value and step."""
    found: dict[str, float] = {}
    folder = run / "metrics"
    for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []
        for line in lines:
            words = line.split()
            try:
                value = float(words[1])
            except (IndexError, ValueError):
                continue
            if math.isfinite(value):
                found[file.relative_to(folder).as_posix()] = value
    return found
