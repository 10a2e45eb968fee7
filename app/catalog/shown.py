"""Limits for the names that the catalog shows, because every listing reads them. The manifest has the rest."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from ..values.checkpoint import Checkpoint, NewCheckpoint
from ..values.manifest import Component
from ..values.slices import slices

MAX_COMPONENTS = 256
MAX_NAMES = 256
MAX_TEXT = 16 * 1024
"""Most characters in the names of all components, and in all names of one kind."""

PAGE_BYTES = 1024 * 1024
"""Approximate size of a page, in bytes of JSON."""

AT_ONCE = 50
"""Checkpoints read in one batch, before their size is known."""

MORE = "..."
"""The last entry of a shortened list of names."""


def shown_components(components: Sequence[Component]) -> tuple[Component, ...]:
    """The first components, in the file's order."""
    shown: list[Component] = []
    text = 0
    for component in components[:MAX_COMPONENTS]:
        text += sum(len(str(part)) + 1 for part in component.path)
        if text > MAX_TEXT:
            break
        shown.append(component)
    return tuple(shown)


def shown_names(names: Iterable[str]) -> tuple[str, ...]:
    """The first names, followed by MORE if some are left out."""
    shown: list[str] = []
    text = 0
    for name in names:
        text += len(name)
        if len(shown) == MAX_NAMES or text > MAX_TEXT:
            return (*shown, MORE)
        shown.append(name)
    return tuple(shown)


def within_page(versions: Sequence[int], load: Callable[[list[int]], Sequence[Checkpoint]]) -> tuple[Checkpoint, ...]:
    """The checkpoints of the first ``versions``, as many as ``load`` reads before they reach PAGE_BYTES."""
    items: list[Checkpoint] = []
    nbytes = 0
    for some in slices(versions, AT_ONCE):
        for checkpoint in load(list(some)):
            items.append(checkpoint)
            nbytes += weight(checkpoint)
            if nbytes >= PAGE_BYTES:
                return tuple(items)
    return tuple(items)


def weight(checkpoint: Checkpoint) -> int:
    """The approximate size of a checkpoint in a listing, in bytes of JSON."""
    numbers = sum(len(name) + 30 for name in checkpoint.metrics)
    texts = sum(len(name) + len(text) + 8 for name, text in checkpoint.tags.items())
    # A component's name is shown twice. The second time is in a URL at least as long as its other fields.
    components = sum(300 + 4 * len(component.name) for component in checkpoint.components)
    names = sum(len(name) + 4 for name in (*checkpoint.devices, *checkpoint.unsafe_globals))
    return 1000 + numbers + texts + components + names


def published(new: NewCheckpoint, id_: int, version: int, at: datetime) -> Checkpoint:
    """Return what a new checkpoint is once it has a version, which it got at the time ``at``."""
    components = shown_components(new.components)
    return Checkpoint(
        id=id_,
        model=new.model,
        version=version,
        run=new.run,
        epoch=new.epoch,
        step=new.step,
        loss=new.loss,
        metrics=dict(sorted(new.metrics.items())),
        tags=dict(sorted(new.tags.items())),
        format=new.format,
        devices=shown_names(new.devices),
        components=tuple(replace(component, param_groups=None) for component in components),
        more_components=len(new.components) - len(components),
        unsafe_globals=shown_names(new.unsafe_globals),
        manifest=new.manifest,
        frame=new.frame,
        nbytes=new.nbytes,
        new_bytes=new.new_bytes,
        digest=new.digest,
        sha256=new.sha256,
        original=new.original,
        created_at=at,
        parent=new.parent,
        warm_started_from=new.warm_started_from,
        slot=new.slot,
        expires_at=None if new.ttl is None else at + new.ttl,
        merge=new.merge,
    )
