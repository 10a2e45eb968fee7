"""Parts of tensors that lie contiguous in a file, read by ranges of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.distributed.checkpoint.planner import LoadPlanner, ReadItem

from ..._api import ModelApi
from ..._checkpoint import Checkpoint
from ..._download.slices import ByteRanges
from ..._load.memory import memory_at
from ..._load.objects import load_tensor
from ..._query import TensorPart

BATCH = 256 * 1024 * 1024
"""Bytes that are received before they are copied to where they belong."""


WORTH_A_REQUEST = 1024 * 1024
"""Bytes beside a part of a tensor for which it is worth to ask for the part alone, which the server then gathers."""


@dataclass(frozen=True)
class Place:
    """A tensor, or a chunk of one: its contiguous elements begin at byte ``start`` of the file."""

    dtype: torch.dtype
    shape: Sequence[int]
    start: int


@dataclass(frozen=True)
class Cut:
    """A part of a tensor that the server can gather: some rows, and of dimension ``dim`` one of several equal shares,
    by its number and their count.
    """

    rows: slice
    dim: int
    shard: tuple[int, int]


def cut_of(item: ReadItem, place: Place, shape: Sequence[int], offsets: Sequence[int]) -> Cut | None:
    """Return the cut to ask for, of a tensor of ``shape`` in which the item lies at ``offsets``; None if the server
    cannot cut so, or if few bytes at ``place`` would be read in vain.
    """
    _, count = covered(strides_of(place.shape), item)
    if (count - math.prod(item.lengths)) * place.dtype.itemsize < WORTH_A_REQUEST:
        return None
    dims = [dim for dim in range(1, len(shape)) if item.lengths[dim] < shape[dim]]
    if len(dims) != 1:
        return None
    offset, length, size = offsets[dims[0]], item.lengths[dims[0]], shape[dims[0]]
    for parts in range(2, size // length + 2):
        each = -(-size // parts)  # as torch.chunk does
        if offset % each == 0 and length == min(each, size - offset):
            return Cut(slice(offsets[0], offsets[0] + item.lengths[0]), dims[0], (offset // each, parts))
    return None


def read_part(api: ModelApi, checkpoint: Checkpoint, part: TensorPart, item: ReadItem, planner: LoadPlanner) -> None:
    """Read a part that the server gathers."""
    received = load_tensor(api, checkpoint, part, None, label=f"{part.key} of {checkpoint}")
    target = planner.resolve_tensor(item).detach()
    target.copy_(received)
    planner.commit_tensor(item, target)


def read_together(wanted: Iterable[tuple[ReadItem, Place]], file: ByteRanges, planner: LoadPlanner) -> None:
    """Read parts of tensors, those of a batch at once."""
    for batch in _batches(wanted):
        parts = [_Wanted(item, planner, place) for item, place in batch]
        file.fill((each.start, each.memory) for each in parts)
        for each in parts:
            each.finish(planner)


class _Wanted:
    """A part of a tensor, the bytes of the file that cover it, and the memory that receives these."""

    def __init__(self, item: ReadItem, planner: LoadPlanner, place: Place) -> None:
        self._item = item
        self._target = planner.resolve_tensor(item).detach()
        strides = strides_of(place.shape)
        first, count = covered(strides, item)
        self.start = place.start + first * place.dtype.itemsize
        size = count * place.dtype.itemsize
        self._received = None
        if count == math.prod(item.lengths) and _is_memory(self._target, place.dtype):
            self.memory = memory_at(self._target.data_ptr(), size) if size else memoryview(b"")
            return
        buffer = torch.empty(count, dtype=place.dtype)
        self.memory = memory_at(buffer.data_ptr(), size)
        self._received = buffer.as_strided(tuple(item.lengths), strides)

    def finish(self, planner: LoadPlanner) -> None:
        if self._received is not None:
            self._target.copy_(self._received)
        planner.commit_tensor(self._item, self._target)


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))


def covered(strides: Sequence[int], item: ReadItem) -> tuple[int, int]:
    """Return the first element of a contiguous tensor, and the number of elements, that cover a part of it."""
    if 0 in item.lengths:
        return 0, 0
    first = sum(offset * stride for offset, stride in zip(item.storage_offsets, strides))
    return first, 1 + sum((length - 1) * stride for length, stride in zip(item.lengths, strides))


def _is_memory(target: torch.Tensor, dtype: torch.dtype) -> bool:
    """Return whether the bytes of the file are those of the target."""
    is_as_stored = target.is_contiguous() and not (target.is_neg() or target.is_conj())
    return is_as_stored and target.dtype == dtype and target.device.type == "cpu"


def _batches(wanted: Iterable[tuple[ReadItem, Place]]) -> Iterator[list[tuple[ReadItem, Place]]]:
    """Group items, in the order of the file, so that not all buffers are needed at once."""
    batch, size = list[tuple[ReadItem, Place]](), 0
    for item, place in sorted(wanted, key=lambda each: each[1].start):
        count = covered(strides_of(place.shape), item)[1] * place.dtype.itemsize
        if batch and size + count > BATCH:
            yield batch
            batch, size = [], 0
        batch.append((item, place))
        size += count
    if batch:
        yield batch
