"""Plans of downloads: wanted bytes are cut into pieces with a digest each, and joined into runs, one request each.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from .._digest import BLOCK_SIZE
from .layout import Stored

RUN_SIZE = 4 * BLOCK_SIZE
"""Largest request, in bytes. Each request costs the server a look into its catalog."""

MAX_GAP = 64 * 1024
"""Largest gap between two pieces, in bytes, that is received and dropped instead of split into two requests."""


class Place(Protocol):
    """A destination for bytes."""

    def room(self, at: int, spare: memoryview) -> memoryview:
        """Return the memory in which to receive the bytes from ``at`` on: in place, or in ``spare``."""

    def put(self, at: int, received: memoryview) -> None:
        """Take bytes that were received into the memory that ``room`` gave."""


class Memory:
    """A place in memory that somebody else keeps alive: bytes go straight into it."""

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def room(self, at: int, spare: memoryview) -> memoryview:
        return self.view[at : at + len(spare)]

    def put(self, at: int, received: memoryview) -> None: ...


class _Nowhere:
    def room(self, at: int, spare: memoryview) -> memoryview:
        return spare

    def put(self, at: int, received: memoryview) -> None: ...


@dataclass(frozen=True)
class Piece:
    """Bytes ``[start, end)`` of the file, part of ``stored``, to be put into ``place``; ``digest`` is their BLAKE3.
    ``held`` is a file of this machine that has all of ``stored``.
    """

    start: int
    end: int
    stored: Stored | None
    place: Place
    digest: bytes | None = None
    damaged: int = 0
    held: Path | None = None

    def at(self, position: int) -> int:
        """Return the offset in its place of a byte of the file."""
        return position - (self.start if self.stored is None else self.stored.start)


def pieces_of(
    wanted: Iterable[tuple[Stored, Place]], *, verify: bool, held: Mapping[int, Path] = MappingProxyType({})
) -> Iterable[Piece]:
    """Cut storages into pieces. ``held`` maps a storage's start in the file to a file of this machine that has it."""
    for stored, place in wanted:
        if stored.size and not stored.blocks:  # in one piece: the server computes its checksum while making it
            yield Piece(stored.start, stored.end, stored, place, held=held.get(stored.start))
            continue
        for number, start in enumerate(range(stored.start, stored.end, BLOCK_SIZE)):
            digest = stored.blocks[number] if verify and stored.blocks else None
            end = min(start + BLOCK_SIZE, stored.end)
            yield Piece(start, end, stored, place, digest, held=held.get(stored.start))


def _source(piece: Piece) -> tuple[Path | None, int] | None:
    """Return the file of this machine with the piece's storage, which several storages may share, or the storage if
    its bytes are in the object store; None: the server.
    """
    if piece.stored is None or (piece.held is None and not piece.stored.at):
        return None
    return piece.held, piece.stored.start


def runs_of(pieces: Sequence[Piece], connections: int) -> Iterable[list[Piece]]:
    """Join adjacent pieces into runs, with the small gaps between them. A run comes from the server or from one file.

    Runs get shorter towards the end, so that all ``connections`` finish their share at about the same time.
    """
    left, size, run = sum(piece.end - piece.start for piece in pieces), 0, list[Piece]()
    for piece in pieces:
        gap = piece.start - run[-1].end if run else 0
        if run and (gap > MAX_GAP or piece.end - run[0].start > size or _source(piece) != _source(run[0])):
            yield run
            run, gap = [], 0
        if not run:
            size = max(BLOCK_SIZE, min(RUN_SIZE, left // (2 * connections)))
        left -= piece.end - piece.start
        if gap:
            run.append(Piece(run[-1].end, piece.start, None, _Nowhere()))
        run.append(piece)
    if run:
        yield run
