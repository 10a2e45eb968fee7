"""The layout of a file to fetch: where its storages lie, and the digests of their bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

from .._digest import BLOCK_SIZE
from .._errors import UnexpectedAnswer, understood

LARGEST = 2**50
"""Largest file, in bytes, a pebibyte: no checkpoint is larger."""

LARGEST_PICKLE = 2**32
"""Largest pickle without its storages, in bytes."""

_ETAG = re.compile(r"[!#-~]+")


@dataclass(frozen=True)
class Stored:
    """Bytes ``[start, end)`` of the file: a storage, or the pickle. ``blocks`` are the digests of its 16 MiB blocks,
    empty if the server has none. ``plain``: torch.load builds its tensors without looking at its bytes. ``at`` are the
    URL, start and end of each part of its bytes in the server's object store, if the client may read there.
    """

    start: int
    end: int
    digest: str | None
    blocks: tuple[bytes, ...]
    plain: bool = False
    at: tuple[tuple[str, int, int], ...] = ()

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Layout:
    """A file of ``size`` bytes at the path ``url``. ``rest`` is the digest of all bytes between the storages;
    ``byteorder`` is that of the storages.
    """

    url: str
    size: int
    etag: str
    rest: str | None
    pickle: Stored | None
    storages: tuple[Stored, ...]
    byteorder: str

    def looked_at(self) -> Layout:
        """Return a copy in which no storage is plain."""
        return replace(self, storages=tuple(replace(each, plain=False) for each in self.storages))

    def between(self) -> list[tuple[int, int]]:
        """Return the byte ranges between the storages, and around them."""
        ends = [0, *(each.end for each in self.storages)]
        starts = [*(each.start for each in self.storages), self.size]
        return [(end, start) for end, start in zip(ends, starts) if end < start]


@understood("an index")
def layout_of(answer: Mapping[str, Any], path_of: Callable[[object], str]) -> Layout | None:
    """Parse an index; return None if the server's index tells too little. ``path_of`` gives the path that an answer
    names.

    Raises UnexpectedAnswer for an index that makes no sense, before any memory is allocated for it.
    """
    if not {"pickle", "byteorder"} <= answer.keys() or answer["block_size"] != BLOCK_SIZE:
        return None
    size, etag = answer["size"], answer["etag"]
    if not (isinstance(size, int) and 0 <= size <= LARGEST) or _ETAG.fullmatch(etag) is None:
        raise ValueError(f"{size!r} bytes, etag {etag!r}")
    pickle = None if answer["pickle"] is None else _stored(answer["pickle"])
    objects = [str(url) for url in answer.get("objects") or ()]
    storages = tuple(_stored(each, objects) for each in answer["storages"])
    byteorder = answer["byteorder"]
    if byteorder not in {"little", "big"}:
        raise ValueError(f"byteorder {byteorder!r}")
    layout = Layout(path_of(answer["url"]), size, etag, answer["rest"], pickle, storages, byteorder)
    ends = [0, *(each.end for each in storages)]
    if any(end > each.start for end, each in zip(ends, storages)) or ends[-1] > size:
        raise UnexpectedAnswer(f"the index of {layout.url} has overlapping storages")
    if pickle is not None and (pickle.end > size or pickle.size > LARGEST_PICKLE):
        raise UnexpectedAnswer(f"the index of {layout.url} has a pickle of {pickle.size} bytes")
    return layout


def _stored(item: Mapping[str, Any], objects: Sequence[str] = ()) -> Stored:
    blocks = tuple(map(bytes.fromhex, item["blocks"]))
    at = tuple((objects[number], int(start), int(end)) for number, start, end in item.get("at") or ())
    stored = Stored(int(item["start"]), int(item["end"]), item["digest"], blocks, item.get("plain", False) is True, at)
    if at and sum(end - start for _, start, end in at) != stored.size:
        raise UnexpectedAnswer(f"the index places {stored.size} bytes of a storage in parts of another size")
    if stored.start < 0 or stored.size < 0 or (blocks and len(blocks) != max(1, -(-stored.size // BLOCK_SIZE))):
        raise UnexpectedAnswer(f"the index has {len(blocks)} digests for {stored.size} bytes")
    return stored
