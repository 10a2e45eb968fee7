"""Parts of the tensors of one component, fetched from its safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from .._api import ModelApi
from .._checkpoint import Checkpoint
from .._digest import BLOCK_SIZE
from .._errors import ServerError, understood
from .._query import Selection
from .fetch_plan import Memory
from .index import Fetching
from .layout import Layout, Stored
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


@dataclass(frozen=True)
class SafetensorsFile:
    """The safetensors file of one component of one checkpoint, of which nothing but the header has been fetched."""

    checkpoint: Checkpoint
    tensors: Mapping[str, TensorPlace]
    fetching: Fetching

    def fill(self, wanted: Iterable[tuple[int, memoryview]]) -> None:
        """Receive the bytes from each start on into the memory that goes with it. Whole blocks are verified."""
        self.fetching.receiver.fill(
            (part, Memory(memory[part.start - start : part.end - start]))
            for start, memory in wanted
            for part in parts_of(self.fetching.layout, start, start + len(memory))
        )


def open_safetensors(api: ModelApi, checkpoint: Checkpoint, selection: Selection) -> SafetensorsFile:
    """Fetch the header of a component's safetensors file. Raises the errors of a state_dict with that selection."""
    fetching = find_component(api, checkpoint, replace(selection, format="safetensors"))
    if fetching is None:
        raise ServerError(f"the server at {api.http.url} does not say where the tensors of a file lie; upgrade it")
    layout = fetching.layout
    head = bytearray(layout.storages[0].start if layout.storages else layout.size)
    fetching.receiver.fill([(Stored(0, len(head), None, ()), Memory(memoryview(head)))])
    return SafetensorsFile(checkpoint, _tensors_in(head, layout.size), fetching)


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


def parts_of(layout: Layout, start: int, end: int) -> Iterator[Stored]:
    """Cut bytes ``[start, end)`` of one storage of the file into its whole blocks, which have digests, and the rest."""
    storage = next((each for each in layout.storages if each.start <= start and end <= each.end), None)
    if storage is None or not storage.blocks:
        yield Stored(start, end, None, ())
        return
    first = -(-(start - storage.start) // BLOCK_SIZE)
    last = len(storage.blocks) if end == storage.end else (end - storage.start) // BLOCK_SIZE
    blocks = storage.blocks[first:last]
    if not blocks:
        yield Stored(start, end, None, ())
        return
    whole = storage.start + first * BLOCK_SIZE, min(storage.start + last * BLOCK_SIZE, storage.end)
    if start < whole[0]:
        yield Stored(start, whole[0], None, ())
    yield Stored(*whole, None, blocks)
    if whole[1] < end:
        yield Stored(whole[1], end, None, ())
