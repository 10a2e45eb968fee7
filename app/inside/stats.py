"""Statistics of a checkpoint's tensors: looked up, or computed in a child process and kept."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from ..catalog import tensor_stats
from ..catalog.catalog import Catalog
from ..concurrency.cancellation import TakesLong, check, current
from ..deliver.stored_file import StoredFile
from ..errors import StorageFull
from ..sandbox.streaming import Child, streaming
from ..values.checkpoint import Checkpoint
from ..values.conversion import Conversion
from ..values.manifest import Tensor
from ..values.tensor_numbers import TensorStats
from .jobs import CHILD, KEPT, HistogramJob, StatsJob, compute_histogram, compute_stats, stats_from_json
from .reading import content_of_small, is_small, messages, small_elements
from .views import elements_of, why_no_numbers, why_unreadable

READ_AT_ONCE = 1024**3
"""Bytes that are read for one page, more only for a single tensor: so a page takes seconds."""

KEPT_AT_ONCE = 256 * 1024**2
"""Bytes after which the statistics so far are kept: whoever asks again need not begin anew."""

_EMPTY = TensorStats(0, None, None, None, None, 0.0, 0, 0, 0, None)


@dataclass(frozen=True, slots=True)
class TensorResult:
    """A tensor's statistics, or the reason why there are none."""

    tensor: Tensor
    stats: TensorStats | None
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A tensor whose elements are numbers. ``key`` names its elements; ``data`` are those of a small one."""

    elements: Conversion
    key: str
    data: bytes | None

    @property
    def cost(self) -> int:
        """Bytes that are read."""
        return self.elements.size


def stats_of(
    catalog: Catalog, stored: StoredFile, checkpoint: Checkpoint, tensors: Sequence[Tensor]
) -> list[TensorResult]:
    """Return the statistics of the first ``tensors``: of all of them, unless too much has to be read.

    Raises TakesLong if something has to be read and there is no time for that, and the errors of a BlobReader and of
    a Child.
    """
    results = [_without_reading(stored, checkpoint, tensor) for tensor in tensors]
    wanted = _named(stored, [each for each in results if isinstance(each, Conversion)])
    namespace = checkpoint.model.namespace
    with catalog.read() as session:
        kept = tensor_stats.get(session, namespace, {each.key for each in wanted.values()})
    known = {key: stats_from_json(text) for key, text in kept.items()}
    count, missing = _affordable(results, wanted, known)
    if missing:
        if not current().may_take_long:
            raise TakesLong
        known |= _computed(catalog, stored, namespace, missing)
    return [
        TensorResult(tensor, known[wanted[each].key]) if isinstance(each, Conversion) else each
        for tensor, each in zip(tensors[:count], results, strict=False)
    ]


def _without_reading(stored: StoredFile, checkpoint: Checkpoint, tensor: Tensor) -> Conversion | TensorResult:
    """Return the elements to look at, or the result if there is nothing to look at."""
    manifest = stored.manifest
    reason = why_no_numbers(manifest, tensor)
    elements = None if reason else elements_of(manifest, tensor)
    if elements is None:
        return TensorResult(tensor, None if reason else _EMPTY, reason)
    reason = why_unreadable(checkpoint, manifest, tensor, elements)
    return elements if reason is None else TensorResult(tensor, None, reason)


def _named(stored: StoredFile, all_elements: Iterable[Conversion]) -> dict[Conversion, _Wanted]:
    """Name elements by their bytes, if those are few, else by the blobs that hold them: equal names, equal numbers."""
    distinct = dict.fromkeys(all_elements)
    small = small_elements(stored, [each for each in distinct if is_small(stored, each)])
    named = {}
    for elements in distinct:
        data = small.get(elements)
        where = _place(stored, elements) if data is None else content_of_small(data)
        named[elements] = _Wanted(elements, f"{where} {elements.dtype.name}", data)
    return named


def _place(stored: StoredFile, elements: Conversion) -> str:
    spans = stored.blobs.resolve(elements.source)
    where = ",".join(f"{blob.digest}[{blob.span.start}:{blob.span.end}]" for blob in spans)
    dims = "" if elements.is_contiguous else "".join(f" {size}*{step}" for size, step in elements.dims)
    return f"{where}{dims}{' big' if elements.byteorder == 'big' else ''}"


def _affordable(
    results: Sequence[Conversion | TensorResult], wanted: Mapping[Conversion, _Wanted], known: Mapping[str, object]
) -> tuple[int, list[_Wanted]]:
    """Return how many of the results can be given, and the statistics to compute for them."""
    missing: dict[str, _Wanted] = {}
    cost = 0
    for count, each in enumerate(results):
        one = wanted[each] if isinstance(each, Conversion) else None
        if one is None or one.key in known or one.key in missing:
            continue
        cost += one.cost
        if missing and cost > READ_AT_ONCE:
            return count, list(missing.values())
        missing[one.key] = one
    return len(results), list(missing.values())


def _computed(
    catalog: Catalog, stored: StoredFile, namespace: str, missing: Sequence[_Wanted]
) -> dict[str, TensorStats]:
    made: dict[str, TensorStats] = {}
    fresh: list[tensor_stats.KeptStats] = []
    read = 0
    try:
        with streaming(CHILD, 2 * sum(each.cost for each in missing)) as child:
            for one in missing:
                check()
                stats = made[one.key] = _compute(child, stored, one)
                blob = next(stored.blobs.resolve(one.elements.source)).digest
                fresh.append(tensor_stats.KeptStats(one.key, blob, json.dumps(asdict(stats))))
                read += one.cost
                if read > KEPT_AT_ONCE:
                    _keep(catalog, namespace, fresh)
                    fresh, read = [], 0
    finally:
        _keep(catalog, namespace, fresh)
    return made


def _keep(catalog: Catalog, namespace: str, fresh: Sequence[tensor_stats.KeptStats]) -> None:
    """Keep statistics, unless the storage is full: they can be computed again."""
    if fresh:
        with suppress(StorageFull), catalog.write(namespace) as session:
            tensor_stats.put(session, namespace, fresh)


def _compute(child: Child, stored: StoredFile, one: _Wanted) -> TensorStats:
    elements = one.elements

    def data() -> Iterator[memoryview | bytes]:
        return iter([one.data]) if one.data is not None else messages(stored, elements)

    stats = compute_stats(child, StatsJob(elements.dtype, elements.size), data())
    if stats.histogram is None and stats.min is not None and stats.max is not None:
        assert elements.size > KEPT  # noqa: S101 - else the child has counted
        histogram = compute_histogram(child, HistogramJob(elements.dtype, stats.min, stats.max), data())
        stats = replace(stats, histogram=histogram)
    return stats
