"""The API's entry to looking inside: pages of statistics and of differences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..catalog.catalog import Catalog
from ..concurrency.single_flight_cache import Cache
from ..deliver.service import Deliver
from ..select.components import choose_component
from ..select.keys import select_leaves
from ..select.query import StateDictQuery
from ..values.checkpoint import Checkpoint
from ..values.difference import Difference, Differences
from ..values.manifest import Manifest, Tensor
from ..values.tensor_numbers import Distance
from .compare import Side, compare
from .distance import distances_of
from .stats import TensorResult, stats_of

T = TypeVar("T")

CACHED_DIFFERENCES = 200_000
"""Items of comparisons that are kept, for their next pages."""

PAGE_TEXT = 1024 * 1024
"""Characters of keys, about, after which a page ends."""

HELD = 64 * 1024 * 1024
"""Bytes that a request may hold at a time: a block of 16 MiB and its elements in order, of two checkpoints."""


@dataclass(frozen=True, slots=True)
class StatsPage:
    """Some statistics; a reader goes on at ``next``, None at the end. The tensors are of ``manifest``."""

    manifest: Manifest
    items: Sequence[TensorResult]
    next: int | None


@dataclass(frozen=True, slots=True)
class DiffPage:
    """Some differences, with the distances where asked for. A reader goes on at ``next``, None at the end."""

    base: Manifest
    other: Manifest
    items: Sequence[tuple[Difference, Distance | None]]
    all: Differences
    next: int | None


class Inside:
    """Every method may block, and must not run on an event loop."""

    def __init__(self, catalog: Catalog, deliver: Deliver) -> None:
        self._catalog = catalog
        self._deliver = deliver
        self._differences: Cache[Differences] = Cache(CACHED_DIFFERENCES, lambda made: len(made.items) + 1)

    def stats(
        self, checkpoint: Checkpoint, component: str | None, include: tuple[str, ...], start: int, limit: int
    ) -> StatsPage:
        """Statistics of tensors, in the file's order: of at most ``limit`` from position ``start`` on.

        Raises SelectionError (``unknown-component``, ``no-keys-matched``, ``bad-pattern``) and the errors of
        ``stats_of``.
        """
        stored = self._deliver.stored(checkpoint)
        tensors = _selected(stored.manifest, component, include)
        items = stats_of(self._catalog, stored, checkpoint, _first(tensors[start : start + limit], _length))
        end = start + len(items)
        return StatsPage(stored.manifest, items, end if end < len(tensors) else None)

    def differences(
        self,
        base: Checkpoint,
        other: Checkpoint,
        component: str | None,
        start: int,
        limit: int,
        *,
        numeric: bool,
    ) -> DiffPage:
        """Differences of ``other`` from ``base``: at most ``limit`` from position ``start`` on.

        Raises SelectionError (``unknown-component``, ``component-ambiguous``) and the errors of ``compare`` and
        ``distances_of``.
        """
        sides = Side(base, self._deliver.stored(base)), Side(other, self._deliver.stored(other))
        names = (f"{one.model.namespace} {one.manifest} {one.thinned_at}" for one in (base, other))
        key = f"{' '.join(names)} {component!r}"
        found = self._differences.get(key, lambda: compare(*sides, component))
        items = _first(found.items[start : start + limit], lambda item: _length(item.base) + _length(item.other))
        distances = distances_of(*sides, items) if numeric else [None] * len(items)
        end = start + len(distances)
        return DiffPage(
            sides[0].manifest,
            sides[1].manifest,
            list(zip(items, distances, strict=False)),
            found,
            end if end < len(found.items) else None,
        )


def _first(items: Sequence[T], length: Callable[[T], int]) -> Sequence[T]:
    """Return the items up to the one with which they reach PAGE_TEXT characters."""
    total = 0
    for number, item in enumerate(items):
        total += length(item)
        if total >= PAGE_TEXT:
            return items[: number + 1]
    return items


def _length(tensor: Tensor | None) -> int:
    return 0 if tensor is None else 20 + len(tensor.key) + 8 * len(tensor.shape or ())


def _selected(manifest: Manifest, component: str | None, include: tuple[str, ...]) -> Sequence[Tensor]:
    tensors: Sequence[Tensor] = manifest.tensors
    if component is not None:
        chosen = choose_component(manifest, component)
        tensors = [tensor for tensor in tensors if tensor.component == chosen]
    if include:
        chosen_keys = select_leaves([tensor.key for tensor in tensors], StateDictQuery(include=include))
        tensors = [tensors[i] for i in chosen_keys]
    return tensors
