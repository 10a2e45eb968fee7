"""Choice of the storage bytes for a file to be written, and of each tensor's new storage and offset.

A whole storage stays unchanged. If only some of its tensors are wanted, a storage is cut down to islands: runs of bytes
in which tensors overlap or touch. Tensors of one island still share a storage, so ties and views stay, and a small view
does not drag a large storage along. A few unused bytes between islands are not worth a cut.

An island with cast tensors becomes a storage of the new dtype for these tensors, element by element, so that they still
share it; and a storage of the old bytes for the other tensors, if any.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import NamedTuple

from ..values.conversion import ByteOrder, Conversion, Dims, merged
from ..values.dtype import DType
from ..values.manifest import Storage
from ..values.span import Span
from .pickle.nodes import Call, Global, Node, StorageRef, TensorRef

MAX_WASTE = 1 / 64
"""Share of unused bytes up to which a storage's islands are sent as one."""

_CUT_ALIGNMENT = 16
"""Bytes of the largest element (complex128): a cut at a multiple keeps every offset whole."""


class Cut(NamedTuple):
    """A part of a storage that becomes a storage of its own; ``span`` is within the storage, in bytes. ``cast`` is the
    old and new dtype of its elements, if they are cast or gathered; ``dims`` are those of gathered elements.
    """

    storage: Storage
    span: Span
    cast: tuple[DType, DType] | None = None
    dims: Dims | None = None

    @property
    def file_span(self) -> Span:
        start = self.storage.span.start
        return Span(start + self.span.start, start + self.span.end)

    @property
    def is_whole(self) -> bool:
        return self.span.length == self.storage.span.length

    def source(self, byteorder: ByteOrder) -> Span | Conversion:
        """Return the source of its bytes, in a file of ``byteorder``."""
        if self.cast is None:
            return self.file_span
        dtype, to = self.cast
        if self.dims is not None:
            return Conversion(self.file_span, dtype, to, self.dims, byteorder, byteorder)
        count = self.span.length // dtype.itemsize
        start = self.file_span.start
        span = Span(start, start + count * dtype.itemsize)
        return Conversion(span, dtype, to, ((count, 1),), byteorder, byteorder)


@dataclass(slots=True)
class Placement:
    """Assigns every storage and tensor its place in the new file. ``cuts`` is in the order of first use.

    ``targets`` are the new dtypes of tensors that are cast, by the ids of their TensorRefs. ``gathered`` are the ids of
    those whose elements become a contiguous storage of their own.
    """

    storages: Mapping[str, Storage]
    device: str | None
    islands: Mapping[str, list[Span]]
    targets: Mapping[int, DType] = field(default_factory=dict)
    gathered: frozenset[int] = frozenset()
    cuts: list[Cut] = field(default_factory=list)
    _contiguous: dict[int, TensorRef] = field(default_factory=dict)
    _placed: dict[tuple[str, str, int, tuple[DType, DType] | None], StorageRef] = field(default_factory=dict)

    def replace(self, ref: StorageRef | TensorRef) -> Node:
        """Return the node to write in place of ``ref``."""
        if isinstance(ref, StorageRef):
            return self._place(ref, Span(0, ref.nbytes))
        to = self.targets.get(id(ref), ref.dtype)
        if self.device == "meta":
            requires_grad = bool(ref.rest and ref.rest[0])
            args = (Global("torch", to.name), ref.shape, ref.stride, requires_grad)
            return Call(Global("torch._utils", "_rebuild_meta_tensor_no_storage"), args)
        if id(ref) in self.gathered:
            if id(ref) not in self._contiguous:
                self._contiguous[id(ref)] = self._gather(ref, to)
            return self._contiguous[id(ref)]
        island = self._island_of(ref)
        offset = ref.offset - island.start // ref.dtype.itemsize
        if to is not ref.dtype:
            storage = self._place(_as(ref.storage, to), island, (ref.dtype, to))
            function, rest = _rebuild_typed(ref)
            return TensorRef(function, storage, offset, ref.shape, ref.stride, rest, to)
        storage = self._place(ref.storage, island)
        return TensorRef(ref.function, storage, offset, ref.shape, ref.stride, ref.rest, ref.dtype)

    def numbers(self, refs: Iterable[StorageRef | TensorRef]) -> set[int]:
        """Return the indices in ``cuts`` of the replacements of ``refs``."""
        placed = map(self.replace, refs)
        storages = (new.storage if isinstance(new, TensorRef) else new for new in placed)
        return {int(storage.key) for storage in storages if isinstance(storage, StorageRef)}

    def _island_of(self, ref: TensorRef) -> Span:
        islands = self.islands.get(ref.storage.key)
        if islands is None:
            return Span(0, ref.storage.nbytes)
        start, _ = extent(ref)
        return islands[bisect_right(islands, start, key=lambda island: island.start) - 1]

    def _gather(self, ref: TensorRef, to: DType) -> TensorRef:
        """Give a tensor a storage of its own, with just its elements in C order."""
        held, function, rest = ref.storage, ref.function, ref.rest
        if to is not ref.dtype:
            held = _as(held, to)
            function, rest = _rebuild_typed(ref)
        count = prod(ref.shape)
        numel = count * ref.dtype.itemsize if held.dtype is None else count
        dims = merged(ref.shape, ref.stride)
        storage = self._own(held, Cut(self.storages[held.key], Span(*extent(ref)), (ref.dtype, to), dims), numel)
        stride = tuple(prod(ref.shape[dim + 1 :]) for dim in range(len(ref.shape)))
        return TensorRef(function, storage, 0, ref.shape, stride, rest, to)

    def _own(self, like: StorageRef, cut: Cut, numel: int) -> StorageRef:
        """Return the storage of a tensor that is gathered."""
        return self._new(like, cut, numel)

    def _new(self, like: StorageRef, cut: Cut, numel: int) -> StorageRef:
        """Add a storage to the new file."""
        location = like.location if self.device is None else self.device
        storage_class = _class_of(like.dtype is None, like.storage_class.name)
        storage = StorageRef(storage_class, like.dtype, str(len(self.cuts)), location, numel)
        self.cuts.append(cut)
        return storage

    def _place(self, ref: StorageRef, span: Span, cast: tuple[DType, DType] | None = None) -> StorageRef:
        place = (ref.key, ref.storage_class.name, span.start, cast)
        placed = self._placed.get(place)
        if placed is None:
            itemsize = 1 if ref.dtype is None else ref.dtype.itemsize
            numel = span.length // (itemsize if cast is None else cast[0].itemsize)
            placed = self._placed[place] = self._new(ref, Cut(self.storages[ref.key], span, cast), numel)
        return placed


@dataclass(slots=True)
class Apart(Placement):
    """Gives each tensor a storage of its own, with its elements in C order. Tensors of the same elements of the same
    storage share one, so they stay tied.
    """

    _tied: dict[Cut, StorageRef] = field(default_factory=dict)

    def _own(self, like: StorageRef, cut: Cut, numel: int) -> StorageRef:
        if cut not in self._tied:
            self._tied[cut] = self._new(like, cut, numel)
        return self._tied[cut]


def apart(refs: Iterable[StorageRef | TensorRef], storages: Mapping[str, Storage]) -> Apart:
    """Make a placement that gives each tensor among ``refs`` a storage of its own."""
    return Apart(storages, None, {}, gathered=frozenset(id(ref) for ref in refs if isinstance(ref, TensorRef)))


@lru_cache(maxsize=100)
def _class_of(is_untyped: bool, name: str) -> Global:
    return Global("torch.storage" if is_untyped else "torch", name)


def _as(storage: StorageRef, dtype: DType) -> StorageRef:
    """Retype a storage to another dtype, which has a storage class."""
    return StorageRef(Global("torch", dtype.storage_class or ""), dtype, storage.key, storage.location, storage.numel)


def _rebuild_typed(ref: TensorRef) -> tuple[Global, tuple[Node, ...]]:
    """Return the function that rebuilds ``ref`` on a typed storage, and its arguments behind the stride."""
    if ref.function.name != "_rebuild_tensor_v3":
        return ref.function, ref.rest
    return Global("torch._utils", "_rebuild_tensor_v2"), (*ref.rest[:2], *ref.rest[3:])


def whole(storages: Mapping[str, Storage], device: str | None) -> Placement:
    """Make a placement that keeps every storage unchanged."""
    return Placement(storages, device, {})


def trimmed(
    refs: Iterable[StorageRef | TensorRef],
    storages: Mapping[str, Storage],
    device: str | None,
    targets: Mapping[int, DType] = MappingProxyType({}),
    gathered: frozenset[int] = frozenset(),
) -> Placement:
    """Make a placement that keeps the bytes that tensors among ``refs`` can see; all bytes of a storage in ``refs``.
    ``targets`` and ``gathered`` are Placement's.
    """
    extents: dict[str, list[tuple[int, int]]] = {}
    bare: set[str] = set()
    for ref in refs:
        if id(ref) in gathered:
            continue
        if isinstance(ref, TensorRef):
            extents.setdefault(ref.storage.key, []).append(extent(ref))
        else:
            bare.add(ref.key)
    return Placement(
        storages,
        device,
        {key: islands_of(spans, storages[key].span.length) for key, spans in extents.items() if key not in bare},
        targets,
        gathered,
    )


def extent(ref: TensorRef) -> tuple[int, int]:
    """Bytes ``[start, end)`` of its storage that a tensor can reach; none for a tensor without elements."""
    if 0 in ref.shape:
        return 0, 0
    itemsize = ref.dtype.itemsize
    start = ref.offset * itemsize
    reach = sum((size - 1) * stride for size, stride in zip(ref.shape, ref.stride, strict=True))
    return start, start + (reach + 1) * itemsize


def islands_of(extents: list[tuple[int, int]], size: int) -> list[Span]:
    """Merge extents into islands within ``[0, size)``, sorted and disjoint; one, if that wastes few bytes."""
    islands: list[list[int]] = []
    for start, end in sorted((start - start % _CUT_ALIGNMENT, end) for start, end in extents):
        if islands and start <= islands[-1][1]:
            islands[-1][1] = max(islands[-1][1], end)
        else:
            islands.append([start, end])
    used = sum(end - start for start, end in islands)
    if size - used <= used * MAX_WASTE:
        return [Span(0, size)]
    hull = islands[-1][1] - islands[0][0]
    if hull - used <= used * MAX_WASTE:
        return [Span(islands[0][0], islands[-1][1])]
    return [Span(start, end) for start, end in islands]
