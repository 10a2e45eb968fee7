"""The items that one process saves, each as torch.save would write it, without a copy of its tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Union

import torch
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult

from ..._api import ModelApi
from ..._errors import InvalidRequest
from ..._load.memory import memory_at
from ..._printable import printable
from ..._upload.pickled import Pickled
from ..._upload.requests import stage_split
from ..._upload.sharded import Blob, BlobSplit, Piece, size_of, storages_of
from ..._upload.split import MIN_STORAGE
from .metadata import StorageInfo


@dataclass(frozen=True)
class Written:
    """A process's message to the coordinator about an item: its place in the file of the process, and its bytes, as
    far as they are not blobs that the server has been sent.
    """

    place: Any
    pieces: tuple[Piece, ...]


class TensorBytes:
    """The contiguous bytes of a tensor, read in pieces: in place if they are so in this host's memory. Otherwise a few
    rows at a time are copied.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        tensor = tensor.detach().resolve_conj().resolve_neg()
        self._rows = tensor.reshape(-1) if tensor.is_contiguous() else tensor
        self._in_place = tensor.is_contiguous() and tensor.device.type == "cpu"
        self.size = tensor.numel() * tensor.element_size()

    def read(self, start: int, end: int) -> Iterator[memoryview]:
        if self._in_place:
            yield memory_at(self._rows.data_ptr() + start, end - start)
            return
        row = math.prod(self._rows.shape[1:]) * self._rows.element_size()
        first, last = start // row, -(-end // row)
        rows = self._rows[first:last].cpu().contiguous()
        yield memory_at(rows.data_ptr() + start - first * row, end - start)


class ValueBytes:
    """Bytes of a value's file."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.size = len(data)

    def read(self, start: int, end: int) -> Iterator[memoryview]:
        yield self._data[start:end]


def write_items(
    api: ModelApi, items: Sequence[WriteItem], resolve: Callable[[WriteItem], Any], file: str, label: str
) -> list[WriteResult]:
    """Send the storages of ``items``, whose tensors and values ``resolve`` gives, and return where each item lies in
    the file of this process. Small items come first, next to each other.
    """
    parts: list[tuple[MetadataIndex, Sequence[_Part]]] = []
    for item in items:
        value = resolve(item)
        if item.type == WriteItemType.BYTE_IO:
            parts.append((item.index, _parts_of_value(value.getbuffer())))
            continue
        _check(item, value)
        is_large = value.numel() * value.element_size() > MIN_STORAGE
        parts.append((item.index, [value] if is_large else [_saved(value)]))
    parts.sort(key=lambda each: any(not isinstance(part, bytes) for part in each[1]))
    return _placed(_sent(api, parts, label), file)


_Part = Union[bytes, ValueBytes, torch.Tensor]
"""Bytes of an item's file, a storage in it, or a tensor that is all of it."""


def _parts_of_value(data: memoryview) -> list[_Part]:
    """Cut a value's file at its large storages, which the server stores as blobs."""
    parts: list[_Part] = []
    end = 0
    for start, stop in storages_of(data):
        parts += [bytes(data[end:start]), ValueBytes(data[start:stop])]
        end = stop
    return [*parts, bytes(data[end:])]


def _check(item: WriteItem, tensor: torch.Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        kind = "quantized" if tensor.is_quantized else f"{tensor.device.type} {tensor.layout}"
        raise InvalidRequest(
            f"{printable(item.index.fqn)} is a {kind} tensor, which cannot be saved in parts: make it a dense tensor"
        )


def _saved(tensor: torch.Tensor) -> bytes:
    """Return the file of a small tensor."""
    pickled = Pickled(tensor.detach().cpu().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format))
    return b"".join(pickled.pieces(pickled.memory()))


def _sent(
    api: ModelApi, items: Sequence[tuple[MetadataIndex, Sequence[_Part]]], label: str
) -> Iterator[tuple[MetadataIndex, tuple[Piece, ...]]]:
    """Send the storages, and yield the items' files as pieces."""
    sources = [
        TensorBytes(part) if isinstance(part, torch.Tensor) else part
        for _, parts in items
        for part in parts
        if not isinstance(part, bytes)
    ]
    blobs: Iterator[Blob] = iter(())
    if sources:
        split = BlobSplit(sources)
        stage_split(api, split, label=label)
        blobs = split.blobs()
    for index, parts in items:
        pieces: list[Piece] = []
        for part in parts:
            pieces += _pieces_of(part, blobs)
        yield index, tuple(pieces)


def _pieces_of(part: _Part, blobs: Iterator[Blob]) -> list[Piece]:
    if isinstance(part, bytes):
        return [part]
    blob = next(blobs)
    if isinstance(part, ValueBytes):
        return [blob]
    form = torch.empty(part.shape, dtype=part.dtype)  # never touched, so it takes no memory
    head, tail = Pickled(form).around(blob.checksum)
    return [head, blob, tail]


def _placed(items: Iterable[tuple[MetadataIndex, tuple[Piece, ...]]], file: str) -> list[WriteResult]:
    results, offset = [], 0
    for index, pieces in items:
        length = sum(map(size_of, pieces))
        results.append(WriteResult(index, length, Written(StorageInfo(file, offset, length), pieces)))
        offset += length
    return results
