"""Blocks that lie close together in a pack, to be read in one go."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..values.checkpoint import Blob
from ..values.digest import BLOCK_SIZE
from ..values.span import Span
from .windows import Block

MAX_GAP = 64 * 1024
"""Bytes between two blocks that are read and discarded to save a second read."""

MAX_RUN = 2 * BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block and its place in a pack."""

    block: Block
    blob: Blob
    span: Span


def runs_of(blocks: Iterable[StoredBlock]) -> Iterator[list[StoredBlock]]:
    """Group blocks that lie close together in one pack, to read them in one go."""
    run: list[StoredBlock] = []
    for stored in sorted(blocks, key=lambda stored: (stored.blob.pack, stored.span.start)):
        if run and not (
            stored.blob.pack == run[-1].blob.pack
            and stored.span.start - run[-1].span.end <= MAX_GAP
            and stored.span.end - run[0].span.start <= MAX_RUN
        ):
            yield run
            run = []
        run.append(stored)
    if run:
        yield run
