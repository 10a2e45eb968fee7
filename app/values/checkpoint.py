"""Checkpoints and blobs as the catalog knows them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from .digest import Digest
from .manifest import Component

_HASH_TO_TORCH_HUB = re.compile(r"-([a-f0-9]*)\.")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a namespace, or a model in it, may be called so."""
    return _NAME.fullmatch(text) is not None and ".." not in text


@dataclass(frozen=True, slots=True)
class ModelName:
    """A line of checkpoints, ``namespace/name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """A checkpoint about to be committed: all but what the catalog itself assigns.

    ``manifest`` and ``frame`` name blobs; ``blobs`` are all the blobs it refers to, those two included, and the length
    that each of them has to have.
    Sizes are in bytes; ``new_bytes`` is by how much the store grew. ``loss`` and metrics may be non-finite.
    ``digest`` and ``sha256`` are None where the server never had the file's bytes in order; without ``original``,
    there was no such file.
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


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A named immutable upload. ``id`` is the catalog's own; users see ``model`` and ``version``.

    ``components`` here carry no ``param_groups``; of a file with very many they are the first, and ``more_components``
    says how many follow. ``devices`` and ``unsafe_globals`` end in ``...`` where they are not all.
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

    @property
    def stem(self) -> str:
        """``resnet50-v12``: what files made of it are called. torch.hub finds no hash in it."""
        return _HASH_TO_TORCH_HUB.sub(r"-\1_", f"{self.model.name}-v{self.version}")

    def file_name(self, unique: str, kind: str, sha256: str | None) -> str:
        """The name of a file made of it, another for every file, because torch.hub caches by name. torch.hub takes
        ``-HEX.`` for the beginning of the file's SHA-256, so that it stands there only where that is known.
        """
        return f"{self.stem}_{unique}.{kind}" if sha256 is None else f"{self.stem}-{sha256[:8]}.{kind}"


@dataclass(frozen=True, slots=True)
class Blob:
    """Where a blob lies: ``length`` bytes at ``offset`` of the pack called ``pack``.

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
    """What a request says about a checkpoint. Where it says nothing, the file is asked."""

    run: str | None = None
    epoch: int | None = None
    step: int | None = None
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
