"""Reader of a folder that torch.distributed.checkpoint wrote, to a Document, as if the whole state_dict had been saved.

A tensor that lies in one piece is a storage of the file. One that was saved in chunks has an assembled storage. A value
that is no tensor has a pickle of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Literal

from ...errors import BadFolder, RefusedCheckpoint
from ...values.span import Span
from ...values.strides import is_c_order
from ...values.work import Work
from ..dense import contiguous_storage, contiguous_tensor
from ..document import AssembledRef, ChunkRef, Document
from ..part import Part
from ..pickle.limits import LIMITS
from ..pickle.nodes import Dict, Node, StorageRef, TensorRef
from ..storage_keys import storage_key, with_keys_of_its_own
from ..torch_tensors import tensor_of
from ..torch_zip import read as torch_zip
from ..torch_zip.archive import read_archive
from .metadata import Item, Saved, SavedTensor, SavedValue, TensorChunk, read_metadata, refused
from .tiling import check_tiling
from .tree import nested

FORMAT = "dcp"

READ_AT_ONCE = 64 * 1024
"""Bytes of an item that is read in one go: most are a number, or the state of a bias."""

_STEPS_PER_ITEM = 600
"""Work to read the zip of an item, beside its pickle."""


def read(path: str, files: Mapping[str, Part], work: Work) -> tuple[Document, frozenset[str]]:
    """Read the save whose ``.metadata`` is at ``path``. Return it, and the paths of the files with its items. All spans
    of the Document are in the file around ``files``.

    Raises BadFolder, and RefusedCheckpoint for an item that cannot be read.
    """
    metadata = files[path]
    if len(metadata) > LIMITS.nbytes:
        raise refused(path, f"it has {len(metadata):,} bytes; at most {LIMITS.nbytes:,} are allowed", "pickle-size")
    saved = read_metadata(metadata[: len(metadata)], path, work)
    for entry in saved.entries:
        if isinstance(entry, SavedTensor):
            check_tiling(entry, path, work)
    document = _Reading(saved, path, _places(saved.items, path, files), work).document(metadata.span)
    return document, frozenset(_folder_of(path) + item.path for item in saved.items)


def tree_of(pickles: Sequence[bytes], keys: Iterable[str], where: str, work: Work) -> Node:
    """Parse ``.metadata`` and the values' pickles to the nodes that ``read`` made. ``keys`` are its Document's."""
    saved = read_metadata(pickles[0], where, work)
    values, irregular = iter(pickles[1:]), frozenset(keys)
    nodes: dict[str, Node] = {}
    for number, entry in enumerate(saved.entries):
        if isinstance(entry, SavedTensor):
            nodes[entry.key] = _whole(entry, number, is_direct=_has_one(entry) and entry.key not in irregular)
        else:
            nodes[entry.key] = with_keys_of_its_own(entry.item, torch_zip.tree_of(next(values), work), work)
    return nested(nodes, saved.paths, where, work)


class _Reading:
    """The reading of the items of one save. ``places`` are the items as files of their own."""

    def __init__(self, saved: Saved, where: str, places: Sequence[Part], work: Work) -> None:
        self._saved = saved
        self._where = where
        self._places = places
        self._work = work
        self._records: dict[str, Span] = {}
        self._checksums: dict[str, int] = {}
        self._storages: dict[str, StorageRef] = {}
        self._assembled: dict[str, AssembledRef] = {}
        self._irregular: list[str] = []
        self._values: list[Span] = []
        self._unsafe = dict.fromkeys(saved.unsafe_globals)
        self._byteorders: dict[Literal["little", "big"], int] = {}

    def document(self, skeleton: Span) -> Document:
        nodes: dict[str, Node] = {}
        for number, entry in enumerate(self._saved.entries):
            if isinstance(entry, SavedValue):
                nodes[entry.key] = self._value(entry.item)
                continue
            views = [(chunk, self._chunk(entry, chunk)) for chunk in entry.chunks]
            is_direct = _has_one(entry) and _fills_its_storage(views[0][1])
            if _has_one(entry) and not is_direct:
                self._irregular.append(entry.key)
            node = nodes[entry.key] = _whole(entry, number, is_direct=is_direct)
            if not is_direct:
                chunks = tuple(
                    ChunkRef(chunk.offsets, chunk.sizes, str(chunk.item), ref.offset, ref.stride)
                    for chunk, ref in views
                )
                self._assembled[node.storage.key] = AssembledRef(node.storage, entry.dtype, entry.shape, chunks)
        return Document(
            root=nested(nodes, self._saved.paths, self._where, self._work),
            format=FORMAT,
            skeleton=skeleton,
            byteorder=self._byteorder(),
            records=self._records,
            checksums=self._checksums,
            storages=self._storages,
            unsafe_globals=tuple(self._unsafe),
            keys=tuple(self._irregular),
            assembled=self._assembled,
            values=tuple(self._values),
        )

    def _value(self, number: int) -> Node:
        document = self._read(number)
        start = self._places[number].span.start
        self._values.append(Span(start + document.skeleton.start, start + document.skeleton.end))
        root = with_keys_of_its_own(number, document.root, self._work)
        for key, storage in document.storages.items():
            self._add(number, document, key, storage_key(number, key), storage)
        return root

    def _chunk(self, tensor: SavedTensor, chunk: TensorChunk) -> TensorRef:
        """Read a chunk of a tensor, and check that it is what ``.metadata`` says."""
        document = self._read(chunk.item)
        ref = tensor_of(document.root)
        if ref is None or len(document.storages) != 1 or _has_lazy_sign(ref):
            raise self._refused(chunk.item, "is not one dense tensor")
        if ref.dtype != tensor.dtype or ref.shape != chunk.sizes:
            raise self._refused(
                chunk.item,
                f"is a tensor of {ref.dtype.name} with the shape {list(ref.shape)}, but {self._where[:200]!r} says "
                f"{tensor.dtype.name} and {list(chunk.sizes)}",
            )
        ((key, storage),) = document.storages.items()
        held = contiguous_storage(tensor.dtype, storage.nbytes, str(chunk.item))
        self._add(chunk.item, document, key, held.key, held)
        return ref

    def _add(self, number: int, document: Document, key: str, own: str, storage: StorageRef) -> None:
        start, span = self._places[number].span.start, document.records[key]
        self._storages[own] = storage
        self._records[own] = Span(start + span.start, start + span.end)
        self._checksums[own] = document.checksums[key]
        self._byteorders.setdefault(document.byteorder, number)

    def _read(self, number: int) -> Document:
        part = self._places[number]
        self._work.spend(_STEPS_PER_ITEM)
        if bytes(part[:4]) != b"PK\3\4":
            raise self._refused(number, "is not a file of torch.save: save with the default serialization_format")
        try:
            data = bytes(part[: len(part)]) if len(part) <= READ_AT_ONCE else part
            document = torch_zip.read(data, read_archive(data), self._work)
        except RefusedCheckpoint as error:
            error.detail = f"{self._name(number)}: {error.detail}"
            error.where = f"{self._saved.items[number].path[:200]}, {error.where}"
            raise
        self._unsafe.update(dict.fromkeys(document.unsafe_globals))
        return document

    def _byteorder(self) -> Literal["little", "big"]:
        if len(self._byteorders) > 1:
            number = max(self._byteorders.values())
            raise self._refused(number, "has another byte order than others: save on machines of one kind", "byteorder")
        return next(iter(self._byteorders), "little")

    def _refused(self, number: int, why: str, rule: str = "dcp-item") -> BadFolder:
        return BadFolder(f"{self._name(number)} {why}", rule=rule, where=self._saved.items[number].path[:200])

    def _name(self, number: int) -> str:
        item = self._saved.items[number]
        return f"the item {item.key[:200]!r} in {item.path[:200]!r}, at byte {item.offset}"


def _places(items: Sequence[Item], where: str, files: Mapping[str, Part]) -> list[Part]:
    """Return the items as files of their own. Raises BadFolder for those that are not within a file, or overlap."""
    folder = _folder_of(where)
    parts: list[Part] = []
    for item in items:
        file = files.get(folder + item.path)
        if file is None:
            raise refused(
                where,
                f"it names the file {item.path[:200]!r}, which is not in the folder: upload all of it",
                "dcp-missing",
            )
        if item.offset < 0 or item.length <= 0 or item.offset + item.length > len(file):
            raise refused(
                where,
                f"{item.key[:200]!r} ends at byte {item.offset + item.length:,} of {item.path[:200]!r}, "
                f"which has {len(file):,}: it was cut off, or is of another save",
                "dcp-extent",
            )
        start = file.span.start + item.offset
        parts.append(Part(file.whole, Span(start, start + item.length)))
    end = 0
    for part, item in sorted(zip(parts, items, strict=True), key=lambda pair: pair[0].span):
        if part.span.start < end:
            raise refused(where, f"{item.key[:200]!r} in {item.path[:200]!r} overlaps the item before it", "dcp-extent")
        end = part.span.end
    return parts


def _folder_of(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _has_one(tensor: SavedTensor) -> bool:
    return len(tensor.chunks) == 1


def _whole(tensor: SavedTensor, number: int, *, is_direct: bool) -> TensorRef:
    """Make the whole tensor: of the storage of its only item, or of an assembled one."""
    nbytes = prod(tensor.shape) * tensor.dtype.itemsize
    key = str(tensor.chunks[0].item) if is_direct else f"whole/{number}"
    return contiguous_tensor(tensor.dtype, tensor.shape, contiguous_storage(tensor.dtype, nbytes, key))


def _fills_its_storage(ref: TensorRef) -> bool:
    """Tell whether a tensor's elements are its storage's, in C order."""
    is_all = ref.storage.nbytes == prod(ref.shape) * ref.dtype.itemsize
    return is_all and not ref.offset and is_c_order(ref.shape, ref.stride)


def _has_lazy_sign(ref: TensorRef) -> bool:
    """Tell whether torch has not yet applied a view's conj or neg."""
    texts = ref.rest[3:] if ref.function.name == "_rebuild_tensor_v3" else ref.rest[2:]
    return bool(texts) and isinstance(texts[0], Dict) and any(value is True for _, value in texts[0].pairs)
