"""Limits on the server's work for one file. Pure.

A view may repeat one stored element a billion times, or be strided so that each element needs another block read. Such
a view is small and honest as saved; written out it could be endless.
"""

from bisect import bisect_right
from collections.abc import Iterable

from ..errors import SelectionError
from ..formats.safetensors.write import Content
from ..values.conversion import Conversion
from ..values.manifest import MIN_BLOB_SIZE, Manifest
from ..values.work import Work
from .windows import blocks_touched, strip_length

MAX_GROWTH = 8
ROOM_TO_GROW = 1 << 30
"""Bytes that any file may grow by."""

MAX_BLOCK_READS = 20_000
"""Block reads for one tensor. Each reads and verifies up to 16 MiB."""

SHORT_LINE = 16
MAX_SHORT_LINES = 500_000
"""Lines of fewer than SHORT_LINE elements, copied one by one: a view of many dimensions has no longer ones."""


def check_cost(tensors: Iterable[Content], manifest: Manifest, work: Work) -> None:
    """Check the limits. Raises SelectionError ``too-expanded`` or ``too-strided``."""
    tensors = list(tensors)
    size, most = sum(tensor.size for tensor in tensors), MAX_GROWTH * manifest.size + ROOM_TO_GROW
    if size > most:
        largest = max(tensors, key=lambda tensor: tensor.size)
        raise SelectionError(
            f"the file would have {size:,} bytes of tensors, {largest.size:,} of them {largest.name[:200]!r}; the "
            f"limit for a checkpoint of {manifest.size:,} bytes is {most:,}. Exclude that tensor, or use format pt, "
            "which keeps views",
            code="too-expanded",
        )
    starts = sorted(storage.span.start for storage in manifest.viewed if storage.span.length > MIN_BLOB_SIZE)
    for tensor in tensors:
        if isinstance(tensor.source, Conversion) and not tensor.source.is_contiguous:
            _check_reads(tensor.name, tensor.source, starts, work)


def _check_reads(name: str, conversion: Conversion, starts: list[int], work: Work) -> None:
    """Check a strided tensor. ``starts`` are the sorted file offsets of storages over MIN_BLOB_SIZE."""
    longest = max(size for size, _ in conversion.dims)
    if longest < SHORT_LINE and conversion.count // longest > MAX_SHORT_LINES:
        raise SelectionError(
            f"{name[:200]!r} is a view of {conversion.count:,} elements that are not contiguous in any dimension. "
            "Exclude it, or use format pt, which keeps views",
            code="too-strided",
        )
    i = bisect_right(starts, conversion.source.start)
    origin = conversion.source.start - starts[i - 1] if i else 0
    reads, length = 0, strip_length(conversion)
    for first in range(0, conversion.count, length):
        last = min(first + length, conversion.count)
        touched = len(blocks_touched(conversion, first, last, origin))
        work.spend(16 * len(conversion.dims) + 4 * touched)
        reads += touched
        if reads > MAX_BLOCK_READS:
            raise SelectionError(
                f"the elements of {name[:200]!r} are so far apart that making it contiguous takes more than "
                f"{MAX_BLOCK_READS:,} reads. Exclude it, or use format pt, which keeps views",
                code="too-strided",
            )
