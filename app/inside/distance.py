"""Distances of changed tensors, computed in a child process."""

from collections.abc import Iterator, Sequence

from ..concurrency.cancellation import TakesLong, check, current
from ..sandbox.streaming import Child, streaming
from ..values.conversion import Conversion
from ..values.difference import Difference
from ..values.manifest import Tensor
from ..values.tensor_numbers import Distance
from .compare import Side
from .jobs import CHILD, DistanceJob, compute_distance
from .reading import messages
from .stats import READ_AT_ONCE
from .views import elements_of, why_no_numbers, why_unreadable


def distances_of(base: Side, other: Side, items: Sequence[Difference]) -> list[Distance | None]:
    """Return the distances of the first ``items``: of all of them, unless too much has to be read. None for an item
    that is not changed, or whose tensors cannot be subtracted.

    Raises TakesLong if something has to be read and there is no time for that, and the errors of a BlobReader and of
    a Child.
    """
    wanted: dict[int, tuple[Conversion, Conversion]] = {}
    cost, count = 0, len(items)
    for number, item in enumerate(items):
        pair = _comparable(base, other, item)
        if pair is not None:
            cost += pair[0].size + pair[1].size
            if wanted and cost > READ_AT_ONCE:
                count = number
                break
            wanted[number] = pair
    if not wanted:
        return [None] * count
    if not current().may_take_long:
        raise TakesLong
    with streaming(CHILD, cost) as child:
        found = {number: _compute(child, base, other, *pair) for number, pair in wanted.items()}
    return [found.get(number) for number in range(count)]


def _comparable(base: Side, other: Side, item: Difference) -> tuple[Conversion, Conversion] | None:
    one, two = item.base, item.other
    if item.status != "changed" or one is None or two is None or one.shape != two.shape:
        return None
    pair = _numbers(base, one), _numbers(other, two)
    return None if pair[0] is None or pair[1] is None else (pair[0], pair[1])


def _numbers(side: Side, tensor: Tensor) -> Conversion | None:
    """Return the elements of a tensor of real numbers, if they can be read."""
    if tensor.dtype.name.startswith(("complex", "bool")) or why_no_numbers(side.manifest, tensor):
        return None
    elements = elements_of(side.manifest, tensor)
    if elements is None or why_unreadable(side.checkpoint, side.manifest, tensor, elements):
        return None
    return elements


def _compute(child: Child, base: Side, other: Side, one: Conversion, two: Conversion) -> Distance:
    def in_turn() -> Iterator[memoryview]:
        for pair in zip(messages(base.stored, one), messages(other.stored, two), strict=True):
            check()
            yield from pair

    return compute_distance(child, DistanceJob(one.dtype, two.dtype), in_turn())
