"""Components of any checkpoint, read from the safetensors files that the server makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.distributed.checkpoint.metadata import (
    STORAGE_TYPES,
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlanner, ReadItem

from ..._api import ModelApi
from ..._checkpoint import Checkpoint
from ..._download.slices import SafetensorsFile, TensorPlace, open_safetensors
from ..._errors import InvalidRequest
from ..._query import Selection, TensorPart
from .ranges import Place, cut_of, read_part, read_together

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
"""Names of dtypes in safetensors files, and in torch."""


@dataclass(frozen=True)
class Components:
    """The wanted components of a checkpoint: their selections and their files, by their places in the state_dict."""

    api: ModelApi
    checkpoint: Checkpoint
    selections: Mapping[str, Selection]
    files: Mapping[str, SafetensorsFile]
    metadata: Metadata

    def read(self, items: Sequence[ReadItem], planner: LoadPlanner) -> None:
        for at, file in self.files.items():
            together = []
            for item in items:
                tensor = file.tensors.get(item.storage_index.fqn)
                if tensor is None:
                    continue
                part = _part(item, tensor, at, self.selections[at])
                if part is None:
                    together.append((item, Place(_dtype(tensor), tensor.shape, tensor.start)))
                else:
                    read_part(self.api, self.checkpoint, part, item, planner)
            read_together(together, file.ranges, planner)


def open_components(api: ModelApi, checkpoint: Checkpoint, selections: Mapping[str, Selection]) -> Components:
    """Look up where the tensors of components lie. Raises the errors of a state_dict with these selections."""
    files: dict[str, SafetensorsFile] = {}
    described: dict[str, STORAGE_TYPES] = {}
    for at, selection in selections.items():
        file = open_safetensors(api, checkpoint, selection)
        files[at] = replace(file, tensors={_below(at, key): each for key, each in file.tensors.items()})
        described |= {key: _described(key, each) for key, each in files[at].tensors.items()}
    return Components(api, checkpoint, selections, files, Metadata(described))


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _part(item: ReadItem, tensor: TensorPlace, place: str, selection: Selection) -> TensorPart | None:
    """Return the part of a tensor to ask for by itself; None if it is read with the others."""
    if selection.prefixes or selection.rename or selection.dtype_exclude:
        return None  # the key that the checkpoint has, or the dtype, is for the server to find
    whole = Place(_dtype(tensor), tensor.shape, tensor.start)
    cut = cut_of(item, whole, whole.shape, item.storage_offsets)
    if cut is None:
        return None
    key = item.storage_index.fqn[len(_below(place, selection.add_prefix or "")) :]
    return TensorPart(key, selection.component, cut.rows, cut.dim, cut.shard, selection.dtype)


def _described(key: str, place: TensorPlace) -> TensorStorageMetadata:
    """Describe a whole tensor as one chunk."""
    if place.dtype not in DTYPES:
        raise InvalidRequest(f"{key} has the dtype {place.dtype}, which cannot be loaded in parts: exclude it")
    shape = torch.Size(place.shape)
    whole = ChunkStorageMetadata(torch.Size([0] * len(shape)), shape)
    return TensorStorageMetadata(TensorProperties(_dtype(place)), shape, [whole])


def _dtype(place: TensorPlace) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, DTYPES[place.dtype])
    return dtype
