"""Where the storages of a file lie that is about to be fetched, and what their bytes have to hash to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ._digest import BLOCK_SIZE
from ._errors import ServerError


@dataclass(frozen=True)
class Stored:
    """Bytes ``[start, end)`` of the file: a storage, or the pickle. ``blocks`` are the digests of its 16 MiB blocks,
    none where the server had none to give. ``plain``: torch.load builds its tensors without looking at its bytes.
    """

    start: int
    end: int
    digest: str | None
    blocks: tuple[bytes, ...]
    plain: bool = False

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Layout:
    """A file of ``size`` bytes at the path ``url``. ``rest`` is the digest of all that lies between the storages."""

    url: str
    size: int
    etag: str
    rest: str | None
    pickle: Stored | None
    storages: tuple[Stored, ...]

    def looked_at(self) -> Layout:
        """The same, with no storage plain."""
        return replace(self, storages=tuple(replace(each, plain=False) for each in self.storages))

    def between(self) -> list[tuple[int, int]]:
        """What lies between the storages, and around them."""
        ends = [0, *(each.end for each in self.storages)]
        starts = [*(each.start for each in self.storages), self.size]
        return [(end, start) for end, start in zip(ends, starts) if end < start]


def layout_of(answer: Mapping[str, Any]) -> Layout | None:
    """From an index; None for that of a server that doesn't tell enough. Raises ServerError for one that makes no
    sense.
    """
    if "pickle" not in answer or answer["block_size"] != BLOCK_SIZE:
        return None
    pickle = None if answer["pickle"] is None else _stored(answer["pickle"])
    storages = tuple(map(_stored, answer["storages"]))
    layout = Layout(answer["url"], answer["size"], answer["etag"], answer["rest"], pickle, storages)
    ends = [0, *(each.end for each in storages)]
    if any(end > each.start for end, each in zip(ends, storages)) or ends[-1] > layout.size:
        raise ServerError(f"the index of {layout.url} has storages that lie across each other")
    return layout


def _stored(item: Mapping[str, Any]) -> Stored:
    blocks = tuple(map(bytes.fromhex, item["blocks"]))
    stored = Stored(item["start"], item["end"], item["digest"], blocks, item.get("plain", False))
    if stored.size < 0 or (blocks and len(blocks) != max(1, -(-stored.size // BLOCK_SIZE))):
        raise ServerError(f"the index has {len(blocks)} digests for {stored.size} bytes")
    return stored
