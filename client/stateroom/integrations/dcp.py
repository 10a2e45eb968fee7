"""torch.distributed.checkpoint: load any checkpoint of a model into tensors that are sharded over processes.

    dcp.load({"model": net.state_dict()}, storage_reader=StateroomReader(model, "best", add_prefix="model."))

Tried with torch 2.13.0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from .._client import Client
from .._download.slices import SafetensorsFile, TensorPlace, open_safetensors
from .._errors import Conflict, InvalidRequest, TorchRequired
from .._load.memory import memory_at
from .._model import Model
from .._query import Ref, Selection
from .._types import Patterns, Prefixes, Rename

try:
    import torch
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        TensorProperties,
        TensorStorageMetadata,
    )
    from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
    from torch.distributed.checkpoint.storage import StorageReader
    from torch.futures import Future
except ImportError as error:
    raise TorchRequired(f"stateroom.integrations.dcp needs torch ({error}): pip install 'stateroom[torch]'") from error

BATCH = 256 * 1024 * 1024
"""Bytes that are received before they are copied to where they belong."""

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
"""Names of dtypes in safetensors files, and in torch."""


class StateroomReader(StorageReader):
    """Reads one component of a checkpoint, whatever its format and however many processes load it.

    ``model`` is a Model, or the name of one on the server of STATEROOM_URL. Each process receives only the rows that
    its tensors have; of tensors that are split along another dimension it receives all rows. The coordinator resolves
    the ref, so that all processes load the same version. ``component`` and the selection are those of
    ``Model.state_dict``; ``add_prefix="model."`` is for a state_dict that hangs below ``"model"``. A ``checkpoint_id``
    that is passed to ``dcp.load`` takes the place of ``ref``.
    """

    def __init__(
        self,
        model: Model | str,
        ref: Ref = "latest",
        *,
        component: str | None = None,
        include: Patterns = (),
        exclude: Patterns = (),
        strip_prefix: Prefixes = None,
        add_prefix: str | None = None,
        rename: Rename = (),
        dtype: Any = None,
        dtype_exclude: Patterns = (),
    ) -> None:
        self._model = Client().model(model) if isinstance(model, str) else model
        self._api = self._model._api.in_background()  # noqa: SLF001  one package
        self._ref = ref
        self._selection = Selection(
            component, strip_prefix, include, exclude, rename, add_prefix, dtype, dtype_exclude, "safetensors"
        )
        self._file: SafetensorsFile | None = None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, str)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        self._file = None
        if checkpoint_id is not None:
            self._ref = os.fspath(checkpoint_id)

    def read_metadata(self) -> Metadata:
        self._file = self._opened(self._ref)
        return Metadata({key: _described(key, place) for key, place in self._file.tensors.items()})

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Tell all processes which version the coordinator found."""
        version = self._opened_before().checkpoint.version
        return [replace(plan, storage_data=version) for plan in plans]

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        file = self._opened_before()
        if file.checkpoint.version != plan.storage_data:
            file = self._moved_to(plan.storage_data, plan.items)
        for items in _batches(plan.items, file):
            wanted = [_Wanted(item, planner, file.tensors[item.storage_index.fqn]) for item in items]
            file.ranges.fill((each.start, each.memory) for each in wanted)
            for each in wanted:
                each.finish(planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _opened(self, ref: Ref) -> SafetensorsFile:
        return open_safetensors(self._api, self._api.checkpoint(ref), self._selection)

    def _opened_before(self) -> SafetensorsFile:
        if self._file is None:
            raise RuntimeError("read_metadata() was not called")
        return self._file

    def _moved_to(self, version: int, items: Sequence[ReadItem]) -> SafetensorsFile:
        """Open the coordinator's version, which has to have the tensors that this process has planned to read."""
        planned, file = self._opened_before(), self._opened(version)
        for key in {item.storage_index.fqn for item in items}:
            if key not in file.tensors or file.tensors[key].shape != planned.tensors[key].shape:
                raise Conflict(
                    f"{self._ref!r} moved from {planned.checkpoint} to {file.checkpoint} meanwhile, and {key} is not "
                    "the same in both: load again, or give the version"
                )
        return file


class _Wanted:
    """A part of a tensor, the bytes of the file that cover it, and the memory that receives these."""

    def __init__(self, item: ReadItem, planner: LoadPlanner, place: TensorPlace) -> None:
        self._item = item
        self._target = planner.resolve_tensor(item).detach()
        dtype, strides = _dtype(place), _strides(place.shape)
        first, count = _covered(strides, item)
        self.start = place.start + first * dtype.itemsize
        size = count * dtype.itemsize
        self._received = None
        if count == math.prod(item.lengths) and _is_memory(self._target, dtype):
            self.memory = memory_at(self._target.data_ptr(), size) if size else memoryview(b"")
            return
        buffer = torch.empty(count, dtype=dtype)
        self.memory = memory_at(buffer.data_ptr(), size)
        self._received = buffer.as_strided(tuple(item.lengths), strides)

    def finish(self, planner: LoadPlanner) -> None:
        if self._received is not None:
            self._target.copy_(self._received)
        planner.commit_tensor(self._item, self._target)


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


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))


def _covered(strides: Sequence[int], item: ReadItem) -> tuple[int, int]:
    """Return the first element of a contiguous tensor, and the number of elements, that cover a part of it."""
    if 0 in item.lengths:
        return 0, 0
    first = sum(offset * stride for offset, stride in zip(item.storage_offsets, strides))
    return first, 1 + sum((length - 1) * stride for length, stride in zip(item.lengths, strides))


def _is_memory(target: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether the bytes of the file are those of the target."""
    is_as_stored = target.is_contiguous() and not (target.is_neg() or target.is_conj())
    return is_as_stored and target.dtype == dtype and target.device.type == "cpu"


def _batches(items: Sequence[ReadItem], file: SafetensorsFile) -> Iterator[list[ReadItem]]:
    """Group items, in the order of the file, so that not all buffers are needed at once."""
    batch, size = list[ReadItem](), 0
    for item in sorted(items, key=lambda item: file.tensors[item.storage_index.fqn].start):
        place = file.tensors[item.storage_index.fqn]
        count = _covered(_strides(place.shape), item)[1] * _dtype(place).itemsize
        if batch and size + count > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += count
    if batch:
        yield batch
