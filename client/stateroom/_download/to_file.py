"""Parallel downloads into a file, each part to its place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO

from .._digest import BLOCK_SIZE, Hasher
from .._errors import DigestMismatch
from .index import Fetching
from .layout import Stored

WORTHWHILE = 2 * BLOCK_SIZE
"""Size of a file, in bytes, from which several connections are faster than one."""


def is_worthwhile(size: int) -> bool:
    """Return whether a parallel download is worthwhile, and possible: not every system has ``pwrite``."""
    return size >= WORTHWHILE and hasattr(os, "pwrite")


class InFile:
    """A place in a file, from its byte ``start`` on."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        self._file = file
        self._start = start

    def room(self, at: int, spare: memoryview) -> memoryview:
        return spare

    def put(self, at: int, received: memoryview) -> None:
        while received:
            written = os.pwrite(self._file.fileno(), received, self._start + at)
            at, received = at + written, received[written:]


def fetch_into(file: IO[bytes], fetching: Fetching, *, verify: bool) -> bool:
    """Download the whole file. Return whether all of it is verified: bytes between storages may have no digest yet."""
    layout = fetching.layout
    between = [Stored(start, end, None, ()) for start, end in layout.between()]
    parts = sorted([*layout.storages, *between], key=lambda part: part.start)
    fetching.receiver.fill([(part, InFile(file, part.start)) for part in parts])
    if not verify or layout.rest is None:
        return False
    check_rest(file, between, layout.rest)
    return all(part.blocks or not part.size for part in layout.storages)


def check_rest(file: IO[bytes], between: Sequence[Stored], rest: str) -> None:
    """Raise DigestMismatch unless the bytes ``between`` the storages, one after another, have the digest ``rest``."""
    hasher = Hasher()
    for part in between:
        file.seek(part.start)
        left = part.size
        while left and (data := file.read(min(left, BLOCK_SIZE))):
            hasher.update(data)
            left -= len(data)
    if hasher.digest() != rest:
        raise DigestMismatch(
            f"the download is damaged: the digest between its storages is {hasher.digest()}, not {rest}"
        )
