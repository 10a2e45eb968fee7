"""Check that the chunks of a tensor are all of it, and that none of its elements is in two of them."""

from bisect import bisect_left
from itertools import product
from math import prod

from ...values.work import Work
from .metadata import SavedTensor, refused


def check_tiling(tensor: SavedTensor, where: str, work: Work) -> None:
    """Raise BadFolder unless each element is in exactly one chunk. Chunks lie within the tensor already.

    The edges of all chunks cut the tensor into cells. Each cell must be in one chunk; as a save of a mesh of processes
    cuts every row of chunks alike, there are hardly more cells than chunks.
    """
    shape, chunks = tensor.shape, tensor.chunks
    held = sum(prod(chunk.sizes) for chunk in chunks)
    if held < prod(shape):
        raise refused(
            where,
            f"the chunks of {tensor.key[:200]!r} have {held:,} elements, but its shape {list(shape)} has "
            f"{prod(shape):,}: a part is missing",
            "dcp-chunks",
        )
    if len(chunks) <= 1 and held == prod(shape):
        return
    edges = [
        sorted({edge for one in chunks for edge in (one.offsets[dim], one.offsets[dim] + one.sizes[dim])})
        for dim in range(len(shape))
    ]
    taken: set[tuple[int, ...]] = set()
    for chunk in chunks:
        ranges = [
            range(bisect_left(edge, at), bisect_left(edge, at + size))
            for edge, at, size in zip(edges, chunk.offsets, chunk.sizes, strict=True)
        ]
        work.spend(4 * (len(shape) + prod(map(len, ranges))))
        for cell in product(*ranges):
            if cell in taken:
                raise refused(
                    where, f"the chunk of {tensor.key[:200]!r} at {list(chunk.offsets)} overlaps another", "dcp-chunks"
                )
            taken.add(cell)
