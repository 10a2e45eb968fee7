"""Folders as torch.distributed.checkpoint writes them, cut in any way, without processes: with its own classes."""

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Offsets and sizes."""


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@dataclass
class Save:
    """A save that is written item by item: ``files`` are the bytes of its files, ``metadata`` what describes them."""

    files: dict[str, bytearray] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=lambda: Metadata({}, planner_data={}, storage_data={}))

    def add_item(self, index: MetadataIndex, item: bytes, file: str = "__0_0.distcp") -> None:
        held = self.files.setdefault(file, bytearray())
        self.metadata.storage_data[index] = _StorageInfo(file, len(held), len(item))
        held += item

    def add_value(self, key: str, value: object, path: Sequence[str | int] | None = None) -> None:
        self.metadata.state_dict_metadata[key] = BytesStorageMetadata()
        self.metadata.planner_data[key] = tuple(path or (key,))
        self.add_item(MetadataIndex(key), saved(value))

    def add_tensor(
        self,
        key: str,
        tensor: torch.Tensor,
        boxes: Sequence[Box] = (),
        path: Sequence[str | int] | None = None,
        *,
        as_it_is: bool = False,
    ) -> None:
        """Add a tensor in one chunk, or in those of ``boxes``, each in a file of its own. ``as_it_is``: a chunk is
        saved as the view of the whole storage that it is.
        """
        boxes = boxes or [((0,) * tensor.dim(), tuple(tensor.shape))]
        self.metadata.state_dict_metadata[key] = TensorStorageMetadata(
            TensorProperties(dtype=tensor.dtype),
            tensor.shape,
            [ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in boxes],
        )
        self.metadata.planner_data[key] = tuple(path or (key,))
        for number, (offsets, sizes) in enumerate(boxes):
            part = tensor[tuple(slice(at, at + size) for at, size in zip(offsets, sizes, strict=True))]
            item = saved(part if as_it_is else part.clone(memory_format=torch.contiguous_format))
            self.add_item(MetadataIndex(key, torch.Size(offsets), number), item, f"__{number}_0.distcp")

    def write(self, folder: Path) -> Path:
        folder.mkdir()
        for path, data in self.contents().items():
            (folder / path).write_bytes(data)
        return folder

    def contents(self) -> dict[str, bytes]:
        return {".metadata": pickle.dumps(self.metadata), **{path: bytes(data) for path, data in self.files.items()}}


def grid(shape: Sequence[int], cuts: Sequence[Sequence[int]]) -> list[Box]:
    """Cut a shape into boxes, at the places ``cuts`` of each dimension."""
    boxes: list[Box] = [((), ())]
    for size, places in zip(shape, cuts, strict=True):
        edges = [0, *sorted(places), size]
        boxes = [((*o, start), (*s, end - start)) for o, s in boxes for start, end in pairwise(edges)]
    return boxes
