"""The file ``.metadata`` of a folder of torch.distributed.checkpoint."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

FILE = ".metadata"

VERSION = "1.0.0"
"""The version of the folder's layout, as torch's own writer states it."""

_OURS = "stateroom-"
"""Beginning of the ``save_id`` of a folder in which all items of tensors are contiguous."""

_PROTOCOL = 2
"""The pickle protocol that torch's weights_only unpickler reads."""

StorageInfo = filesystem._StorageInfo  # noqa: SLF001  the name in every such file

_ALLOWED: list[Any] = [
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageInfo,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
    _MEM_FORMAT_ENCODING,
    torch.serialization._get_layout,  # noqa: SLF001  the name in every such file
]


def save_id(name: str) -> str:
    return _OURS + name


def written(metadata: Metadata) -> bytes:
    """Return the file."""
    return pickle.dumps(metadata, _PROTOCOL)


def read(data: bytes) -> Metadata | None:
    """Read the file; return None for one that StateroomWriter has not written. No name that it has is looked up, but
    for those of its own classes.
    """
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            metadata = torch._weights_only_unpickler.load(io.BytesIO(data))  # noqa: SLF001  torch.load takes no bare pickle
    except Exception:  # noqa: BLE001  unpickling damaged bytes raises anything, and torch refuses others' protocols
        return None
    if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_meta, StorageMeta):
        return None
    return metadata if str(metadata.storage_meta.save_id).startswith(_OURS) else None
