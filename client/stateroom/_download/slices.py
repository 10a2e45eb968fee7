"""Any byte ranges of a file that the server makes, and those of the tensors in a safetensors file."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from .._api import ModelApi
from .._checkpoint import Checkpoint
from .._digest import BLOCK_SIZE
from .._errors import ServerError, understood
from .._query import Selection
from .fetch_plan import Memory
from .index import Fetching
from .layout import Stored
from .requests import find_component

LENGTH = 8
"""Bytes before the header, which say how long it is."""


@dataclass(frozen=True)
class TensorPlace:
    """The contiguous little-endian elements of a tensor: bytes ``[start, end)`` of the file. ``dtype`` is the format's
    name of it.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class ByteRanges:
    """The bytes of a file, fetched by ranges: several at once, over several connections, coalesced."""

    def __init__(self, fetching: Fetching) -> None:
        self.layout = fetching.layout
        self._receiver = fetching.receiver
        self._starts = [storage.start for storage in self.layout.storages]

    def fill(self, wanted: Iterable[tuple[int, memoryview]]) -> None:
        """Receive the bytes from each start on into the memory that goes with it. Whole blocks are verified."""
        self._receiver.fill(
            (part, Memory(memory[part.start - start : part.end - start]))
            for start, memory in wanted
            for part in self.parts(start, start + len(memory))
        )

    def read(self, start: int, end: int) -> bytearray:
        data = bytearray(end - start)
        self.fill([(start, memoryview(data))])
        return data

    def parts(self, start: int, end: int) -> Iterator[Stored]:
        """Cut bytes ``[start, end)`` of the file into whole blocks of storages, which have digests, and the rest."""
        position = start
        storages = self.layout.storages
        for number in range(max(0, bisect_right(self._starts, start) - 1), len(storages)):
            storage = storages[number]
            if storage.start >= end:
                break
            first = max(0, -(-(start - storage.start) // BLOCK_SIZE))
            last = len(storage.blocks) if storage.end <= end else (end - storage.start) // BLOCK_SIZE
            if blocks := storage.blocks[first:last]:
                first_byte = storage.start + first * BLOCK_SIZE
                if position < first_byte:
                    yield Stored(position, first_byte, None, ())
                position = min(storage.start + last * BLOCK_SIZE, storage.end)
                yield Stored(first_byte, position, None, blocks)
        if position < end:
            yield Stored(position, end, None, ())


@dataclass(frozen=True)
class SafetensorsFile:
    """The safetensors file of one component, of which nothing but the header has been fetched."""

    tensors: Mapping[str, TensorPlace]
    ranges: ByteRanges


def open_safetensors(api: ModelApi, checkpoint: Checkpoint, selection: Selection) -> SafetensorsFile:
    """Fetch the header of a component's safetensors file. Raises the errors of a state_dict with that selection."""
    fetching = find_component(api, checkpoint, replace(selection, format="safetensors"))
    if fetching is None:
        raise ServerError(f"the server at {api.http.url} does not say where the tensors of a file lie; upgrade it")
    ranges = ByteRanges(fetching)
    storages, size = ranges.layout.storages, ranges.layout.size
    head = ranges.read(0, storages[0].start if storages else size)
    return SafetensorsFile(_tensors_in(head, size), ranges)


@understood("the header of a safetensors file")
def _tensors_in(head: bytearray, size: int) -> Mapping[str, TensorPlace]:
    first = LENGTH + int.from_bytes(head[:LENGTH], "little")
    tensors = {}
    for key, entry in json.loads(head[LENGTH:first]).items():
        if key == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        if not 0 <= start <= end <= size - first:
            raise ValueError(f"{key} has the offsets {start} and {end}")
        tensors[key] = TensorPlace(entry["dtype"], tuple(entry["shape"]), first + start, first + end)
    return tensors
