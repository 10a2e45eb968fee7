"""``.metadata``: the pickle that says which tensors a save of torch.distributed.checkpoint has, and where they lie.

The pickle is parsed to inert nodes; its classes are never looked up. They have been the same since torch 2.0, except
for fields that came or went, so a node is known by its fields.

Reference: torch/distributed/checkpoint/metadata.py and filesystem.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from ...errors import BadFolder
from ...values.dtype import DTYPES, DType
from ...values.manifest import Path
from ...values.work import Work
from ..pickle.machine import InertHooks, parse
from ..pickle.nodes import Call, Dict, Global, Node
from ..tensor_arguments import MAX_BYTES, MAX_DIMS, integers_of

MAX_PATH = 100
"""Most elements of a path in the state_dict."""

_CLASSES = (
    "BytesStorageMetadata ChunkStorageMetadata Metadata MetadataIndex StorageMeta TensorProperties "
    "TensorStorageMetadata _MEM_FORMAT_ENCODING"
)
_KNOWN = frozenset(
    [
        *(f"torch.distributed.checkpoint.metadata.{name}" for name in _CLASSES.split()),
        "torch.distributed.checkpoint.filesystem._StorageInfo",
        "torch.distributed._shard.sharded_tensor.metadata.TensorProperties",
        "torch.distributed._shard.sharded_tensor.metadata.MEM_FORMAT_ENCODING",
        "torch.Size",
        "torch.serialization._get_layout",
        "collections.OrderedDict",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib.PurePosixPath",
    ]
)
"""Names in the pickles of torch 2.0 to 2.13."""

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """An object that was saved: bytes ``[offset, offset + length)`` of a file are a file of torch.save. ``key`` is that
    of its tensor or value.
    """

    key: str
    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class TensorChunk:
    """A box of a tensor's elements; ``item`` is the number of the item that holds it."""

    offsets: Sizes
    sizes: Sizes
    item: int


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """A tensor by its flat key. ``chunks`` have elements, and are in the order of their first ones."""

    key: str
    dtype: DType
    shape: Sizes
    chunks: tuple[TensorChunk, ...]


@dataclass(frozen=True, slots=True)
class SavedValue:
    """A value that is no tensor, by its flat key."""

    key: str
    item: int


@dataclass(frozen=True, slots=True)
class Saved:
    """The items that were saved, in the order of the state_dict. ``paths`` are the places of flat keys in it; a key
    without one is at its top level. ``unsafe_globals`` are names in the pickle that torch does not write: ``dcp.load``
    would run them.
    """

    entries: tuple[SavedTensor | SavedValue, ...]
    items: tuple[Item, ...]
    paths: Mapping[str, Path]
    unsafe_globals: tuple[str, ...] = ()


class _Names(InertHooks):
    """Notes the names in a pickle that a ``.metadata`` file does not have."""

    def __init__(self) -> None:
        self.unknown: list[str] = []

    def named(self, name: Global, near: str | None) -> None:
        if name.full_name not in _KNOWN and not (name.module == "torch" and name.name in DTYPES):
            self.unknown.append(name.full_name)


def read_metadata(pickle: bytes | memoryview, where: str, work: Work) -> Saved:
    """Read a ``.metadata`` file. Errors call it ``where``. Raises BadFolder, and the errors of the pickle machine."""
    names = _Names()
    fields = _fields(parse(pickle, names, record=where, work=work))
    described, stored = fields.get("state_dict_metadata"), fields.get("storage_data")
    if not isinstance(described, Dict) or not isinstance(stored, Dict):
        raise refused(
            where,
            "it is not the Metadata of torch.distributed.checkpoint with storage_data, as FileSystemWriter and "
            "FsspecWriter write it",
        )
    work.spend(8 * (len(described.pairs) + len(stored.pairs)))
    items, places = _items(stored, where)
    entries: list[SavedTensor | SavedValue] = []
    keys: set[str] = set()
    for key, node in described.pairs:
        if type(key) is not str or key in keys:
            raise refused(where, "a key of its state_dict_metadata is not text, or comes twice")
        keys.add(key)
        entry = _fields(node)
        if "chunks" in entry:
            entries.append(_tensor(key, entry, places, where, work))
        else:
            entries.append(SavedValue(key, _found(places, key, None, where)))
    paths = _paths(fields.get("planner_data"), where, work)
    return Saved(tuple(entries), items, paths, tuple(names.unknown))


def refused(where: str, why: str, rule: str = "dcp-metadata") -> BadFolder:
    """Return the error for a ``.metadata`` file that is wrong."""
    return BadFolder(f"{where[:200]!r} is wrong: {why}", rule=rule, where=where[:200])


def _fields(node: Node) -> dict[str, Node]:
    """Return the attributes of an object that was pickled with its ``__dict__``; none of any other node."""
    state = node.states[-1] if isinstance(node, Call) and node.states else None
    return {key: value for key, value in state.pairs if type(key) is str} if isinstance(state, Dict) else {}


_Places = dict[tuple[str, Sizes | None], int]
"""Numbers of items, by key and offsets."""


def _items(stored: Dict, where: str) -> tuple[tuple[Item, ...], _Places]:
    items: list[Item] = []
    places: _Places = {}
    for node, info in stored.pairs:
        index, fields = _fields(node), _fields(info)
        key, offsets = index.get("fqn"), index.get("offset")
        path, offset, length = fields.get("relative_path"), fields.get("offset"), fields.get("length")
        if type(key) is not str or type(path) is not str or type(offset) is not int or type(length) is not int:
            raise refused(where, "storage_data has an entry without fqn, relative_path, offset and length")
        if fields.get("transform_descriptors"):
            raise refused(
                where,
                f"the items are compressed or encrypted ({key[:200]!r}, by extensions of the writer), and cannot be "
                "read: save without extensions",
                "dcp-transformed",
            )
        place = key, None if offsets is None else _sizes(offsets, where)
        if place in places:
            raise refused(where, f"{key[:200]!r} is stored twice at the offsets {place[1]}")
        places[place] = len(items)
        items.append(Item(key, path, offset, length))
    return tuple(items), places


def _tensor(key: str, fields: Mapping[str, Node], places: _Places, where: str, work: Work) -> SavedTensor:
    shape = _sizes(fields.get("size"), where)
    dtype = _dtype(fields.get("properties"))
    chunks = fields["chunks"]
    if dtype is None or type(chunks) is not list:
        raise refused(where, f"{key[:200]!r} has no dtype that torch.save knows, or no list of chunks")
    if prod(shape) * dtype.itemsize > MAX_BYTES:
        raise refused(where, f"{key[:200]!r} has more elements than can be counted")
    work.spend(len(chunks) * (8 + 4 * len(shape)))
    found: list[TensorChunk] = []
    for node in chunks:
        chunk = _fields(node)
        offsets, sizes = _sizes(chunk.get("offsets"), where), _sizes(chunk.get("sizes"), where)
        if len(offsets) != len(shape) or len(sizes) != len(shape):
            raise refused(where, f"a chunk of {key[:200]!r} has another number of dimensions", "dcp-chunks")
        if any(at + size > whole for at, size, whole in zip(offsets, sizes, shape, strict=True)):
            raise refused(
                where,
                f"the chunk of {key[:200]!r} at {list(offsets)} with the sizes {list(sizes)} is outside of the tensor, "
                f"whose shape is {list(shape)}",
                "dcp-chunks",
            )
        if 0 not in sizes:
            found.append(TensorChunk(offsets, sizes, _found(places, key, offsets, where)))
    return SavedTensor(key, dtype, shape, tuple(sorted(found, key=lambda one: one.offsets)))


def _found(places: _Places, key: str, offsets: Sizes | None, where: str) -> int:
    try:
        return places[key, offsets]
    except KeyError:
        at = "" if offsets is None else f" at {list(offsets)}"
        raise refused(where, f"storage_data does not tell where {key[:200]!r}{at} is stored", "dcp-missing") from None


def _dtype(properties: Node) -> DType | None:
    """Return the dtype in a TensorProperties, whose state is a tuple that begins with it, or a dict."""
    state = properties.states[-1] if isinstance(properties, Call) and properties.states else None
    named = state[0] if type(state) is tuple and state else _fields(properties).get("dtype")
    return DTYPES.get(named.name) if isinstance(named, Global) and named.module == "torch" else None


def _sizes(node: Node, where: str) -> Sizes:
    sizes = integers_of(node)
    if len(sizes) > MAX_DIMS or not all(type(size) is int and 0 <= size <= MAX_BYTES for size in sizes):
        raise refused(where, "it has sizes or offsets that no tensor can have")
    return sizes


def _paths(node: Node, where: str, work: Work) -> dict[str, Path]:
    """Return the paths in ``planner_data``; none if the planner kept something else there, or flattened nothing."""
    paths: dict[str, Path] = {}
    for key, value in node.pairs if isinstance(node, Dict) else ():
        path = tuple(value) if type(value) in {tuple, list} else ()
        work.spend(4 + len(path))
        if type(key) is not str or not _is_path(path):
            raise refused(where, "planner_data has a key without a path of names and numbers", "dcp-path")
        paths[key] = path
    return paths


def _is_path(path: Iterable[Node]) -> bool:
    elements = list(path)
    plain = all(type(each) is str or (type(each) is int and 0 <= each <= MAX_BYTES) for each in elements)
    return plain and 0 < len(elements) <= MAX_PATH
