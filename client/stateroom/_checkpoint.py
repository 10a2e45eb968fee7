"""Checkpoints and models as the server describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Component:
    """A state_dict inside a checkpoint. ``kind`` is ``state_dict`` or ``optimizer``; ``keys`` counts its keys (an
    optimizer's: its tensors) and ``bytes`` each storage once. A flat file is the component ``""``.
    """

    name: str
    kind: str
    keys: int
    bytes: int


@dataclass(frozen=True)
class ModelSummary:
    """A model as a listing has it: how many checkpoints it has, and what the ref ``best`` means in it."""

    name: str
    best: str
    checkpoints: int
    created_at: datetime


@dataclass(frozen=True)
class Checkpoint:
    """A named immutable upload. ``str()`` of it reads ``vision/resnet50@12``.

    ``bytes`` is its size and ``new_bytes`` by how much the store grew; ``digest`` and ``sha256`` are of the uploaded
    file. A loss or metric that is no finite number reads None and is named in ``nonfinite``. ``unsafe_globals`` are
    the names for which ``load`` needs ``weights_only=False``.
    """

    model: str
    version: int
    run: str | None
    epoch: int | None
    step: int | None
    loss: float | None
    format: str
    bytes: int
    new_bytes: int
    digest: str
    sha256: str | None
    created_at: datetime
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    unsafe_globals: tuple[str, ...] = ()
    nonfinite: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"

    def __hash__(self) -> int:
        return hash((self.model, self.version))


def model_of(data: Mapping[str, Any]) -> ModelSummary:
    """From the server's JSON."""
    return ModelSummary(data["model"], data["best"], data["checkpoints"], _time(data["created_at"]))


def checkpoint_of(data: Mapping[str, Any]) -> Checkpoint:
    """From the server's JSON; fields that this client doesn't know yet are ignored."""
    return Checkpoint(
        model=data["model"],
        version=data["version"],
        run=data["run"],
        epoch=data["epoch"],
        step=data["step"],
        loss=data["loss"],
        format=data["format"],
        bytes=data["bytes"],
        new_bytes=data["new_bytes"],
        digest=data["digest"],
        sha256=data["sha256"],
        created_at=_time(data["created_at"]),
        metrics=data["metrics"],
        tags=data["tags"],
        devices=tuple(data["devices"]),
        components=tuple(Component(c["name"], c["kind"], c["keys"], c["bytes"]) for c in data["components"]),
        unsafe_globals=tuple(data["unsafe_globals"]),
        nonfinite=tuple(data.get("nonfinite", ())),
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.11 is the first to read Z
