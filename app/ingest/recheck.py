"""The check that blocks recorded as arrived are in the file. A commit never accepts a block that is not.

A record is trusted if this run of the server wrote the block into this same file, and the file system reports no hole
there. Every other block is read and compared with its digest, because records outlive the server, the machine's last
writes, a data dir that was copied or restored from a backup, and a file that was replaced by another.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor

from ..catalog.uploads import Part
from ..store import PartialFile
from ..store.digests import Hasher
from ..values.span import Span
from ..values.split import Split


def lost(file: PartialFile, split: Split, parts: Iterable[Part], threads: Executor) -> list[Part]:
    """The ``parts`` with a block that is not in ``file``. The caller holds ``file``."""
    holes, stamp = file.holes(), file.stamp

    def is_lost(part: Part) -> bool:
        return not all(
            _is_there(file, split, number)
            for number in part.numbers
            if part.stamp != stamp or _touches(split.spans(number), holes)
        )

    parts = list(parts)
    return [part for part, gone in zip(parts, threads.map(is_lost, parts), strict=True) if gone]


def _touches(spans: Iterable[Span], holes: Sequence[Span]) -> bool:
    """Tell whether one of ``spans`` overlaps one of ``holes``, which are in order."""
    if not holes:
        return False
    for span in spans:
        before = bisect_right(holes, span.end - 1, key=lambda hole: hole.start) - 1
        if before >= 0 and holes[before].end > span.start:
            return True
    return False


def _is_there(file: PartialFile, split: Split, number: int) -> bool:
    hasher = Hasher()
    for span in split.spans(number):
        hasher.update(file.read(span))
    return hasher.blocks == split.digests(range(number, number + 1))
