"""A save of StateroomWriter: the parts of tensors that a process wants, and the values, read from the folder's zip."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlanner, ReadItem

from ..._api import ModelApi
from ..._checkpoint import Checkpoint
from ..._download.requests import find_upload
from ..._download.slices import ByteRanges
from ..._errors import NotFound, SelectionError, UnexpectedAnswer, understood
from ..._query import TensorPart
from ..._raw_file import RawFile
from ..._torch import load
from . import metadata as metadata_file
from .ranges import Place, cut_of, read_part, read_together

FOLDER = "folder"
"""The format of a checkpoint that is a folder."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint of StateroomWriter. ``files`` are the places of the processes' files in the zip ``ranges``, and
    ``starts`` those of the storages.
    """

    api: ModelApi
    checkpoint: Checkpoint
    metadata: Metadata
    ranges: ByteRanges
    files: Mapping[str, int]
    starts: Sequence[int]
    weights_only: bool

    def read(self, items: Sequence[ReadItem], planner: LoadPlanner) -> None:
        large: list[tuple[ReadItem, Place]] = []
        small: list[tuple[ReadItem, int, bytearray]] = []
        for item in items:
            start, end = self._span(item)
            place = self._place(item, start, end)
            if place is None:
                small.append((item, start, bytearray(end - start)))
            elif not self._gathered(item, place, planner):
                large.append((item, place))
        self.ranges.fill((start, memoryview(data)) for _, start, data in small)
        for item, _, data in small:
            self._take(item, io.BytesIO(data), planner)
        read_together(large, self.ranges, planner)

    def _span(self, item: ReadItem) -> tuple[int, int]:
        """Return where the item lies in the zip."""
        info = self.metadata.storage_data[item.storage_index]
        start = self.files[info.relative_path] + info.offset
        return start, start + info.length

    def _place(self, item: ReadItem, start: int, end: int) -> Place | None:
        """Return where the bytes of a large tensor lie; None for a small one, and for a value."""
        if item.type == LoadItemType.BYTE_IO:
            return None
        storages = self.ranges.layout.storages
        number = bisect_left(self.starts, start)
        if number == len(storages) or storages[number].start >= end:
            return None
        tensor = cast("TensorStorageMetadata", self.metadata.state_dict_metadata[item.storage_index.fqn])
        shape = next(chunk.sizes for chunk in tensor.chunks if chunk.offsets == item.storage_index.offset)
        dtype = tensor.properties.dtype
        if storages[number].size != math.prod(shape) * dtype.itemsize or storages[number].end > end:
            raise UnexpectedAnswer(f"{item.storage_index.fqn} of {self.checkpoint} is not what its .metadata says")
        return Place(dtype, shape, storages[number].start)

    def _gathered(self, item: ReadItem, place: Place, planner: LoadPlanner) -> bool:
        """Read some columns of a tensor as the server gathers them. Return False if it is not worth it, or if the
        server does not know the tensor by its component and its key.
        """
        fqn = item.storage_index.fqn
        path = (self.metadata.planner_data or {}).get(fqn, ())
        tensor = cast("TensorStorageMetadata", self.metadata.state_dict_metadata[fqn])
        offsets = [begin + more for begin, more in zip(item.storage_index.offset or (), item.storage_offsets)]
        cut = cut_of(item, place, tensor.size, offsets) if len(path) > 1 else None
        if cut is None:
            return False
        part = TensorPart(".".join(map(str, path[1:])), str(path[0]), cut.rows, cut.dim, cut.shard, None)
        try:
            read_part(self.api, self.checkpoint, part, item, planner)
        except (NotFound, SelectionError):
            return False
        return True

    def _take(self, item: ReadItem, data: io.BytesIO, planner: LoadPlanner) -> None:
        # torch's planner loads values with weights_only=False: load each before, as torch does with True.
        value = load(data, "cpu", weights_only=self.weights_only or item.type != LoadItemType.BYTE_IO)
        data.seek(0)
        if item.type == LoadItemType.BYTE_IO:
            planner.load_bytes(item, data)
            return
        for dim, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths)):
            value = value.narrow(dim, offset, length)
        target = planner.resolve_tensor(item).detach()
        target.copy_(value)
        planner.commit_tensor(item, target)


def open_saved(api: ModelApi, checkpoint: Checkpoint, *, weights_only: bool) -> Saved | None:
    """Return None for a checkpoint that StateroomWriter has not saved."""
    if checkpoint.format != FOLDER or all(file.path != metadata_file.FILE for file in api.files(checkpoint)):
        return None
    fetching = find_upload(api, checkpoint)
    if fetching is None:
        return None
    ranges = ByteRanges(fetching)
    places = _files_in(ranges)
    if metadata_file.FILE not in places:
        return None
    start, size = places[metadata_file.FILE]
    metadata = metadata_file.read(bytes(ranges.read(start, start + size)))
    if metadata is None:
        return None
    files = {name: start for name, (start, _) in places.items()}
    starts = [storage.start for storage in ranges.layout.storages]
    return Saved(api, checkpoint, metadata, ranges, files, starts, weights_only)


class _Tail(RawFile):
    """A file of which only the end is known."""

    def __init__(self, size: int, data: bytes) -> None:
        super().__init__(size)
        self._data = data

    def fill(self, at: int, view: memoryview) -> None:
        first = at - (self._size - len(self._data))
        if first < 0:
            raise zipfile.BadZipFile("its directory is not at its end")
        view[:] = self._data[first : first + len(view)]


@understood("the zip of a folder")
def _files_in(ranges: ByteRanges) -> dict[str, tuple[int, int]]:
    """Return the start of each file's bytes in the zip, and their number."""
    layout = ranges.layout
    end = layout.storages[-1].end if layout.storages else 0
    with zipfile.ZipFile(io.BufferedReader(_Tail(layout.size, bytes(ranges.read(end, layout.size))))) as archive:
        entries = archive.infolist()
    heads: list[Any] = [bytearray(30) for _ in entries]
    ranges.fill((entry.header_offset, memoryview(head)) for entry, head in zip(entries, heads))
    places = {}
    for entry, head in zip(entries, heads):
        start = entry.header_offset + 30 + sum(struct.unpack_from("<HH", head, 26))
        if start + entry.file_size > layout.size:
            raise ValueError(f"{entry.filename} ends after its zip")
        places[entry.filename] = (start, entry.file_size)
    return places
