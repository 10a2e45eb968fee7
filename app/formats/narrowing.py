"""Boxes of elements cut out of tensors, as views."""

from collections.abc import Iterable

from .pickle.nodes import TensorRef


def narrowed(ref: TensorRef, region: Iterable[tuple[int, int]]) -> TensorRef:
    """Return a view of a part of a tensor. ``region`` is the first index and the size in each dimension."""
    starts, shape = zip(*region, strict=True) if ref.shape else ((), ())
    skipped = sum(start * step for start, step in zip(starts, ref.stride, strict=True)) if 0 not in shape else 0
    return TensorRef(ref.function, ref.storage, ref.offset + skipped, shape, ref.stride, ref.rest, ref.dtype)
