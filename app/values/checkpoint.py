"""Checkpoints and blobs as the catalog knows them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from .digest import Digest
from .hub import NewHubCommit
from .manifest import Component

_HASH_TO_TORCH_HUB = re.compile(r"-([a-f0-9]*)\.")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


def is_name(text: str) -> bool:
    """Tell whether ``text`` is a valid name of a namespace or a model."""
    return _NAME.fullmatch(text) is not None and ".." not in text


@dataclass(frozen=True, slots=True)
class ModelName:
    """A line of checkpoints, ``namespace/name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """The name of a checkpoint, ``namespace/name@N``, which stays when the checkpoint is deleted."""

    model: ModelName
    version: int

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


def own_parent(model: ModelName, parent: CheckpointName | None) -> CheckpointName | None:
    """Return ``parent`` if an upload to ``model`` may keep it from retention: if it is in the same namespace."""
    return parent if parent is not None and parent.model.namespace == model.namespace else None


def parse_checkpoint_name(text: str) -> CheckpointName | None:
    """Parse ``namespace/name@N``; None if ``text`` is no such name."""
    model, _, version = text.partition("@")
    namespace, _, name = model.partition("/")
    if not (is_name(namespace) and is_name(name) and _VERSION.fullmatch(version)):
        return None
    return CheckpointName(ModelName(namespace, name), int(version))


@dataclass(frozen=True, slots=True)
class Pin:
    """A mark that keeps a checkpoint from removal, whatever else would remove it."""

    reason: str | None
    at: datetime
    by: str | None


RemovalReason = Literal["deleted", "retention", "expired", "replaced"]


@dataclass(frozen=True, slots=True)
class Removal:
    """The removal of a checkpoint: into the trash, until a sweep purges it after ``purge_at``. ``by`` is the token that
    did it, None for the server itself or without tokens.
    """

    at: datetime
    by: str | None
    reason: RemovalReason
    purge_at: datetime


MergeMethod = Literal["average", "linear", "slerp", "ema"]


@dataclass(frozen=True, slots=True)
class MergeSource:
    """A checkpoint that a merge was made of, and the weight of its tensors in the result."""

    checkpoint: CheckpointName
    weight: float


@dataclass(frozen=True, slots=True)
class Merge:
    """How a checkpoint was computed from others, its ``sources`` in order. ``component`` is the one that was asked for,
    None for the default one; ``decay`` is that of an ``ema``.
    """

    method: MergeMethod
    sources: tuple[MergeSource, ...]
    component: str | None = None
    decay: float | None = None


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """A checkpoint about to be committed, without the fields that the catalog assigns.

    ``manifest`` and ``frame`` name blobs; ``blobs`` maps all blobs of the checkpoint, these two included, to their
    expected lengths.
    Sizes are in bytes; ``new_bytes`` is the growth of the store. ``loss`` and metrics may be non-finite.
    ``digest`` is None if the server never had the file's bytes in order, ``sha256`` unless the client said it; without
    ``original``, there was no such file. Training went on from ``parent``; it began with tensors of
    ``warm_started_from``. The checkpoint expires ``ttl`` after its commit; in its run it replaces the one in ``slot``.
    ``scan``: look for numbers that are not finite. ``hub`` is the commit of the Hugging Face Hub's protocol that makes
    it. ``merge`` says what it was computed from.
    """

    model: ModelName
    run: str | None
    epoch: int | None
    step: int | None
    loss: float | None
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    format: str
    devices: tuple[str, ...]
    components: tuple[Component, ...]
    unsafe_globals: tuple[str, ...]
    manifest: Digest
    frame: Digest
    blobs: Mapping[Digest, int]
    nbytes: int
    new_bytes: int
    digest: Digest | None
    sha256: str | None
    original: bool = True
    idempotency_key: str | None = None
    parent: CheckpointName | None = None
    warm_started_from: CheckpointName | None = None
    ttl: timedelta | None = None
    slot: str | None = None
    optimizer_bytes: int = 0
    scan: bool = False
    hub: NewHubCommit | None = None
    merge: Merge | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A named immutable upload. ``id`` is the catalog's own; users see ``model`` and ``version``.

    ``components`` here carry no ``param_groups``. A file with very many has only the first here, and
    ``more_components`` counts the others. Shortened ``devices`` and ``unsafe_globals`` end in ``...``. One that was
    thinned has lost its optimizers' bytes. ``sha256`` is None until somebody asks for it,
    and so is ``nonfinite_tensors``. Only one in the trash has a ``removal``, and only one that
    was computed from others a ``merge``.
    """

    id: int
    model: ModelName
    version: int
    run: str | None
    epoch: int | None
    step: int | None
    loss: float | None
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    format: str
    devices: tuple[str, ...]
    components: tuple[Component, ...]
    unsafe_globals: tuple[str, ...]
    manifest: Digest
    frame: Digest
    nbytes: int
    new_bytes: int
    digest: Digest | None
    sha256: str | None
    original: bool
    created_at: datetime
    more_components: int = 0
    aliases: tuple[str, ...] = ()
    parent: CheckpointName | None = None
    warm_started_from: CheckpointName | None = None
    pin: Pin | None = None
    slot: str | None = None
    expires_at: datetime | None = None
    thinned_at: datetime | None = None
    nonfinite_tensors: int | None = None
    removal: Removal | None = None
    merge: Merge | None = None

    @property
    def stem(self) -> str:
        """Base name of files made of the checkpoint, like ``resnet50-v12``. torch.hub finds no hash in it."""
        return _HASH_TO_TORCH_HUB.sub(r"-\1_", f"{self.model.name}-v{self.version}")

    def file_name(self, unique: str, kind: str, sha256: str | None) -> str:
        """Return a name for a file made of the checkpoint. Each file has its own, because torch.hub caches by name.
        torch.hub takes ``-HEX.`` for the start of a SHA-256, so only a file of known SHA-256 has ``-HEX.``.
        """
        return f"{self.stem}_{unique}.{kind}" if sha256 is None else f"{self.stem}-{sha256[:8]}.{kind}"


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob and its place: ``length`` bytes at ``offset`` of the pack called ``pack``.

    ``blocks`` are the raw BLAKE3 digests of its 16 MiB blocks, concatenated; a blob of one block has one.
    """

    digest: Digest
    pack: str
    offset: int
    length: int
    crc32: int
    blocks: bytes


@dataclass(frozen=True, slots=True)
class Fields:
    """A request's fields for a checkpoint. A field that is not given is read from the file."""

    run: str | None = None
    epoch: int | None = None
    step: int | None = None
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    parent: CheckpointName | None = None
    warm_started_from: CheckpointName | None = None
    ttl: timedelta | None = None
    slot: str | None = None
    scan: bool = False
    hub: NewHubCommit | None = None
    merge: Merge | None = None
