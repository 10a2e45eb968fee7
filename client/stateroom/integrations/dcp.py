"""torch.distributed.checkpoint: load any checkpoint of a model into tensors that are sharded over processes.

    dcp.load({"model": net.state_dict()}, storage_reader=StateroomReader(model, "best", add_prefix="model."))

Tried with torch 2.13.0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._checkpoint import Checkpoint
from .._client import Client
from .._download.slices import SafetensorsFile, TensorPlace, open_safetensors
from .._errors import Conflict, InvalidRequest, TorchRequired
from .._load.memory import memory_at
from .._load.objects import load_tensor
from .._model import Model
from .._query import Ref, Selection, TensorPart
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

WORTH_A_REQUEST = 1024 * 1024
"""Bytes beside a part of a tensor for which it is worth to ask for the part alone, which the server then gathers."""

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
"""Names of dtypes in safetensors files, and in torch."""


class StateroomReader(StorageReader):
    """Reads components of a checkpoint, whatever its format and however many processes load it.

    ``model`` is a Model, or the name of one on the server of STATEROOM_URL. Each process receives only the parts that
    its tensors have. The coordinator resolves the ref, so that all processes load the same version. ``component`` and
    the selection are those of ``Model.state_dict``; ``add_prefix="model."`` is for a state_dict that hangs below
    ``"model"``. For several components, ``component`` maps each place in the state_dict to the component that belongs
    there: ``{"model": "model_state_dict", "optimizer": "optimizer_state_dict"}``. A ``checkpoint_id`` that is passed to
    ``dcp.load`` takes the place of ``ref``.
    """

    def __init__(
        self,
        model: Model | str,
        ref: Ref = "latest",
        *,
        component: str | Mapping[str, str] | None = None,
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
        if isinstance(component, Mapping) and add_prefix is not None:
            raise InvalidRequest("give either add_prefix or a mapping of components, which says where each belongs")
        components = component if isinstance(component, Mapping) else {"": component}
        self._selections = {
            place: Selection(name, strip_prefix, include, exclude, rename, add_prefix, dtype, dtype_exclude)
            for place, name in components.items()
        }
        self._opened: _Opened | None = None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, str)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        self._opened = None
        if checkpoint_id is not None:
            self._ref = os.fspath(checkpoint_id)

    def read_metadata(self) -> Metadata:
        self._opened = self._open(self._ref)
        return Metadata({key: _described(key, place) for key, place in self._opened.tensors.items()})

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Tell all processes which version the coordinator found."""
        version = self._opened_before().checkpoint.version
        return [replace(plan, storage_data=version) for plan in plans]

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        opened = self._opened_before()
        if opened.checkpoint.version != plan.storage_data:
            opened = self._moved_to(plan.storage_data, plan.items)
        for place, file in opened.files.items():
            together = []
            for item in plan.items:
                if item.storage_index.fqn not in file.tensors:
                    continue
                part = _part(item, file.tensors[item.storage_index.fqn], place, self._selections[place])
                if part is None:
                    together.append(item)
                else:
                    self._read_part(part, item, opened.checkpoint, planner)
            _read_together(together, file, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read_part(self, part: TensorPart, item: ReadItem, checkpoint: Checkpoint, planner: LoadPlanner) -> None:
        target = planner.resolve_tensor(item).detach()
        target.copy_(load_tensor(self._api, checkpoint, part, None, label=f"{part.key} of {checkpoint}"))
        planner.commit_tensor(item, target)

    def _open(self, ref: Ref) -> _Opened:
        checkpoint = self._api.checkpoint(ref)
        files = {}
        for place, selection in self._selections.items():
            file = open_safetensors(self._api, checkpoint, selection)
            files[place] = replace(file, tensors={_below(place, key): each for key, each in file.tensors.items()})
        return _Opened(checkpoint, files, {key: each for file in files.values() for key, each in file.tensors.items()})

    def _opened_before(self) -> _Opened:
        if self._opened is None:
            raise RuntimeError("read_metadata() was not called")
        return self._opened

    def _moved_to(self, version: int, items: Sequence[ReadItem]) -> _Opened:
        """Open the coordinator's version, which has to have the tensors that this process has planned to read."""
        planned, opened = self._opened_before(), self._open(version)
        for key in {item.storage_index.fqn for item in items}:
            if key not in opened.tensors or opened.tensors[key].shape != planned.tensors[key].shape:
                raise Conflict(
                    f"{self._ref!r} moved from {planned.checkpoint} to {opened.checkpoint} meanwhile, and {key} is not "
                    "the same in both: load again, or give the version"
                )
        return opened


@dataclass(frozen=True)
class _Opened:
    """A checkpoint: the files of the wanted components, by their places, and all tensors in these files, by the keys
    that they have in the state_dict.
    """

    checkpoint: Checkpoint
    files: Mapping[str, SafetensorsFile]
    tensors: Mapping[str, TensorPlace]


def _read_together(items: Sequence[ReadItem], file: SafetensorsFile, planner: LoadPlanner) -> None:
    """Read parts of tensors by ranges of the file."""
    for batch in _batches(items, file):
        wanted = [_Wanted(item, planner, file.tensors[item.storage_index.fqn]) for item in batch]
        file.ranges.fill((each.start, each.memory) for each in wanted)
        for each in wanted:
            each.finish(planner)


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _part(item: ReadItem, tensor: TensorPlace, place: str, selection: Selection) -> TensorPart | None:
    """Return the part of a tensor to ask for by itself; None if it is read with the others."""
    _, covered = _covered(_strides(tensor.shape), item)
    if (covered - math.prod(item.lengths)) * _dtype(tensor).itemsize < WORTH_A_REQUEST:
        return None
    shard = _shard(item, tensor.shape)
    if shard is None or selection.prefixes or selection.rename or selection.dtype_exclude:
        return None  # the key that the checkpoint has, or the dtype, is for the server to find
    dim, number, count = shard
    rows = slice(item.storage_offsets[0], item.storage_offsets[0] + item.lengths[0])
    key = item.storage_index.fqn[len(_below(place, selection.add_prefix or "")) :]
    return TensorPart(key, selection.component, rows, dim, (number, count), selection.dtype)


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


def _shard(item: ReadItem, shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Return the dimension, beside the first, along which a part is cut, and its number and their count, if
    ``torch.chunk`` cuts such parts.
    """
    cut = [dim for dim in range(1, len(shape)) if item.lengths[dim] < shape[dim]]
    if len(cut) != 1:
        return None
    offset, length, size = item.storage_offsets[cut[0]], item.lengths[cut[0]], shape[cut[0]]
    for count in range(2, size // length + 2):
        each = -(-size // count)
        if offset % each == 0 and length == min(each, size - offset):
            return cut[0], offset // each, count
    return None


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
