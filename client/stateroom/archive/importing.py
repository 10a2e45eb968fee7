"""Imports: an export, or folders that other tools have written, as checkpoints of a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._checkpoint import Checkpoint
from .._client import Client
from .._errors import InvalidRequest, NotFound, RefusedCheckpoint, StateroomError
from .._model import Model
from . import layout
from .sources import Found, checkpoints_below

ORIGIN = "imported_from"
"""Tag of an imported checkpoint: what it was, ``vision/resnet50@12`` or a path. It is not imported twice."""

CREATED = "created_at"
"""Tag with the time at which an exported checkpoint was uploaded first."""


@dataclass(frozen=True)
class Imported:
    """The outcome for a checkpoint that was found: the name of the one that it is on the server now, ``was_there`` if
    an earlier import had stored it; or None, and ``why`` it was refused.
    """

    source: str
    checkpoint: str | None
    was_there: bool = False
    why: str | None = None


Report = Callable[[Imported], None]


def import_folder(
    client: Client,
    folder: str | os.PathLike[str],
    model: str | None = None,
    *,
    run: str | None = None,
    report: Report | None = None,
) -> list[Imported]:
    """Store what a folder holds: an export, with its models (or its only one, as ``model``); or as new checkpoints of
    ``model`` a folder of checkpoint files, a folder of the Hugging Face Hub or of its Trainer, one of
    torch.distributed.checkpoint, or an MLflow artifact root.

    Versions are given anew, in their order. What an earlier import has stored is found by its tag ``imported_from`` and
    not stored again. A file that the server refuses is skipped and listed with the reason. ``report`` is called after
    each checkpoint. Raises StateroomError for a file of an export whose bytes have changed, and InvalidRequest without
    a ``model`` where one is needed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InvalidRequest(f"{root} is not a folder")
    if layout.is_export(root):
        found = _import_export(client, root, model)
    elif model is None:
        raise InvalidRequest(f"{root} is not an export of Stateroom: name the model that its checkpoints belong to")
    else:
        found = _import_files(client.model(model, run), run, checkpoints_below(root), client)
    done = []
    for imported in found:
        done.append(imported)
        if report is not None:
            report(imported)
    if not done:
        raise InvalidRequest(f"{root} holds no checkpoint")
    return done


def _import_export(client: Client, root: Path, model: str | None) -> Iterator[Imported]:
    models = list(layout.models_in(root))
    if model is not None and len(models) != 1:
        raise InvalidRequest(f"{root} holds {len(models)} models: import them under their own names")
    for name, folder in models:
        yield from _import_model(client, model or name, folder)


def _import_model(client: Client, name: str, folder: Path) -> Iterator[Imported]:
    """Store a model's checkpoints, and then what else it is, as far as the model here does not say otherwise."""
    here = _checkpoints(client.model(name, run=""))
    there = _by_origin(here)
    # An export may come back to the server that it was made of.
    own = {f"{each.model}@{each.version} {each.created_at.isoformat()}": each for each in here}
    now: dict[int, Checkpoint] = {}
    for version, place in layout.checkpoints_in(folder):
        said = layout.read_json(place / layout.CHECKPOINT)
        source = f"{said['model']}@{version}"
        known = there.get(source) or own.get(f"{source} {said['created_at']}")
        now[version] = known or _store(client.model(name, said.get("run") or ""), place, said, source, now)
        yield Imported(source, str(now[version]), was_there=known is not None)
    if not now:
        return
    model, said = client.model(name), layout.read_json(folder / layout.MODEL)
    if not here and said.get("best"):
        model.set_best(said["best"])
    has = {each.name for each in model.aliases() if each.version is not None}
    for alias, version in said["aliases"].items():
        if alias not in has and version in now:
            model.alias(alias, now[version])


def _store(
    model: Model, place: Path, said: Mapping[str, Any], source: str, now: Mapping[int, Checkpoint]
) -> Checkpoint:
    """Store one exported checkpoint with everything that was said of it."""
    _check(place, said["files"])
    files = place / layout.FILES
    [path] = [files] if files.is_dir() else [place / name for name in said["files"]]
    stored = model.upload(
        path,
        epoch=said.get("epoch"),
        step=said.get("step"),
        loss=said.get("loss"),
        metrics={name: value for name, value in (said.get("metrics") or {}).items() if value is not None},
        tags={**(said.get("tags") or {}), ORIGIN: source, CREATED: said["created_at"]},
        parent=_renamed(said.get("parent"), said["model"], now),
        warm_started_from=_renamed(said.get("warm_started_from"), said["model"], now),
        slot=said.get("slot"),
    )
    if said.get("pin") is not None:
        model.pin(stored, reason=said["pin"]["reason"])
    return stored


def _check(place: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise StateroomError unless the files of an export are as they were written."""
    for name, facts in files.items():
        path = place / name
        if place.resolve() not in path.resolve().parents:
            raise StateroomError(f"{place / layout.CHECKPOINT} names a file outside its folder: {name!r}")
        if not path.is_file():
            raise StateroomError(f"{path} is missing: restore it, or export again")
        if layout.facts_of(path) != dict(facts):
            raise StateroomError(f"{path} has changed since it was exported: restore it, or export again")


def _renamed(name: str | None, model: str, now: Mapping[int, Checkpoint]) -> Checkpoint | str | None:
    """Return what an exported checkpoint of the same model is called now."""
    if name is None:
        return None
    of, _, version = name.partition("@")
    return now.get(int(version), name) if of == model and version.isdecimal() else name


def _import_files(model: Model, run: str | None, found: Iterable[Found], client: Client) -> Iterator[Imported]:
    there = _by_origin(_checkpoints(client.model(model.name, run="")))
    for each in found:
        known = there.get(each.name)
        if known is not None and (each.path.is_dir() or known.bytes == each.path.stat().st_size):
            yield Imported(each.name, str(known), was_there=True)
            continue
        into = model if each.run is None or run is not None else client.model(model.name, each.run)
        try:
            stored = _upload(into, each)
        except RefusedCheckpoint as error:
            yield Imported(each.name, None, why=error.detail)
        else:
            yield Imported(each.name, str(stored))


def _upload(model: Model, found: Found) -> Checkpoint:
    tags = {ORIGIN: found.name}
    return model.upload(found.path, metrics=found.metrics, tags=tags, parent=None, warm_started_from=None)


def _checkpoints(model: Model) -> list[Checkpoint]:
    """Return a model's checkpoints, oldest first; none if there is no such model."""
    try:
        return list(model.checkpoints(order="version"))
    except NotFound:
        return []


def _by_origin(checkpoints: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    """Return those that were imported, by what they were."""
    return {each.tags[ORIGIN]: each for each in checkpoints if ORIGIN in each.tags}
