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

ENOUGH_AHEAD = 4 * 1024 * 1024
"""Bytes that are worth a read of their own where nobody waits for them yet. A longer run would take one connection
longer, and blocks out of two objects of a store have to be copied together.
"""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block and its place in a pack."""

    block: Block
    blob: Blob
    span: Span


def runs_of(blocks: Iterable[StoredBlock], enough: int = MAX_RUN) -> Iterator[list[StoredBlock]]:
    """Group blocks that lie close together in one pack, to read them in one go. A run of ``enough`` bytes gets no
    further block.
    """
    run: list[StoredBlock] = []
    for stored in sorted(blocks, key=lambda stored: (stored.blob.pack, stored.span.start)):
        if run and not (
            stored.blob.pack == run[-1].blob.pack
            and stored.span.start - run[-1].span.end <= MAX_GAP
            and stored.span.end - run[0].span.start <= MAX_RUN
            and run[-1].span.end - run[0].span.start < enough
        ):
            yield run
            run = []
        run.append(stored)
    if run:
        yield run
