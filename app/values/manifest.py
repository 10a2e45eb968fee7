"""Contents of an upload: the manifest, and the plain facts copied into the catalog.

Positions are offsets in the uploaded file. Plans use these offsets; ``deliver.spans`` turns them into blobs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from .digest import Digest
from .dtype import DType
from .folder import FolderFile
from .span import Span
from .strides import is_c_order, is_run, strides_of

Path = tuple[str | int, ...]
"""A place in a checkpoint: the keys and list indices that lead there. ``()`` is the root."""


def dotted(path: Path) -> str:
    """A path as text, for people and for look-ups; two paths may have one text."""
    return ".".join(map(str, path))


def is_one_element(shape: tuple[int, ...]) -> bool:
    """Tell whether a tensor of this shape is a number for ``Tensor.item()``."""
    return all(size == 1 for size in shape)


ComponentKind = Literal["state_dict", "optimizer"]

MIN_BLOB_SIZE = 4096
"""Storages of more bytes than this are blobs; smaller ones stay in the frame."""


@dataclass(frozen=True, slots=True)
class Storage:
    """torch's untyped byte buffer as it lies in the file.

    ``dtype`` is None for an untyped storage; ``location`` is the device tag saved with the storage; ``crc32`` is of its
    bytes; ``digest`` names its blob, and is None if the storage is small enough to stay in the frame.
    """

    key: str
    location: str
    dtype: DType | None
    span: Span
    crc32: int = 0
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage. ``offset`` and ``stride`` count elements; ``storage`` is a number for ``Manifest.storage``.

    ``component`` indexes ``Manifest.components``, or is None for a tensor that belongs to the root;
    ``path`` starts below its component. A tensor on the meta device has no storage; a lazy tensor that has seen no
    batch also has no shape, and the dtype that it will have by default.
    """

    component: int | None
    path: Path
    dtype: DType
    shape: tuple[int, ...] | None
    stride: tuple[int, ...]
    offset: int
    storage: int | None

    @property
    def key(self) -> str:
        """The path as dotted text: a state_dict's own key, an optimizer's ``state.0.exp_avg``."""
        return dotted(self.path)

    def is_at(self, key: str) -> bool:
        """Tell whether ``key`` is the tensor's, without making a text of every path."""
        return str(self.path[0]) == key if len(self.path) == 1 else self.key == key

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's elements, as if contiguous; none without a storage."""
        if self.shape is None or self.storage is None:
            return 0
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Chunk:
    """A box of a tensor's elements: ``sizes`` of them from ``offsets`` on, in each dimension. ``storage`` indexes
    ``Manifest.storages``; ``offset`` and ``stride`` count elements, as in a tensor that views it.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    storage: int
    offset: int
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.sizes)

    @property
    def is_plain(self) -> bool:
        """Tell whether its elements are those of its storage from the first on, in C order."""
        return not self.offset and self.stride == strides_of(self.sizes)


@dataclass(frozen=True, slots=True)
class Assembled:
    """The storage of a tensor whose elements lie in several places of the file, as torch.distributed.checkpoint writes
    them from many processes. It holds all elements in C order, and has a span beyond the end of the file: plans treat
    it as any other, and only who reads its bytes has to know where they come from.

    Each element of the tensor, which has ``shape`` and ``dtype``, is in one of ``chunks``. Those are in the order of
    their first elements; none is empty.
    """

    storage: Storage
    dtype: DType
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def is_in_order(self) -> bool:
        """Tell whether the bytes of the chunks, one after another, are those of the storage: so if the tensor was
        sharded by rows.
        """
        strides, done = strides_of(self.shape), 0
        for chunk in self.chunks:
            first = sum(offset * stride for offset, stride in zip(chunk.offsets, strides, strict=True))
            if first != done or not is_run(chunk.sizes, self.shape) or not is_c_order(chunk.sizes, chunk.stride):
                return False
            done += chunk.count
        return True


@dataclass(frozen=True, slots=True)
class Component:
    """A state_dict inside a checkpoint. ``keys`` counts its keys (an optimizer: its tensors); ``nbytes`` counts
    each storage it uses once; ``param_groups`` is an optimizer's, as JSON text. ``named_only``: never the default
    component, because something else may be the model.
    """

    path: Path
    kind: ComponentKind
    keys: int
    nbytes: int
    param_groups: str | None = None
    named_only: bool = False

    @property
    def name(self) -> str:
        """Dotted text; ``""`` for a checkpoint that is one flat state_dict."""
        return dotted(self.path)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint without its tensors' bytes: the source of every listing, plan and range.

    ``skeleton`` is the span of the pickle or header; ``size`` is the whole file's; ``frame`` names the blob of all
    bytes outside blob-sized storages; ``metadata`` is a safetensors file's own texts, by name;
    ``keys`` are the keys of a TorchScript archive's state_dict, which its skeleton alone does not tell.
    ``files`` are those of a folder, each checkpoint among them with a skeleton of its own; its last storages are files
    that are blobs of their own. ``assembled`` are storages that are not in one place of the file: see ``storage``.
    """

    format: str
    size: int
    skeleton: Span
    storages: tuple[Storage, ...]
    tensors: Sequence[Tensor]
    components: tuple[Component, ...]
    unsafe_globals: tuple[str, ...] = ()
    byteorder: Literal["little", "big"] = "little"
    frame: Digest | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    files: tuple[FolderFile, ...] = ()
    assembled: tuple[Assembled, ...] = ()

    @property
    def skeletons(self) -> tuple[Span, ...]:
        """The spans whose bytes, one after another, have to be parsed for a plan."""
        if not self.files:
            return (self.skeleton,)
        return tuple(span for file in self.files if file.source is not None for span in file.source.skeletons)

    def storage(self, number: int) -> Storage:
        """Return a tensor's storage. The assembled ones are numbered behind those that lie in the file."""
        first = len(self.storages)
        return self.storages[number] if number < first else self.assembled[number - first].storage

    def stored_in(self, number: int) -> tuple[int, ...]:
        """Return the indices in ``storages`` of the bytes of a tensor's storage."""
        first = len(self.storages)
        return (number,) if number < first else tuple(each.storage for each in self.assembled[number - first].chunks)

    def weight(self) -> int:
        """Number of tensors, storages and chunks, plus one."""
        return len(self.tensors) + len(self.storages) + sum(len(each.chunks) for each in self.assembled) + 1

    @property
    def viewed(self) -> Iterator[Storage]:
        """The storages that tensors may view, by number."""
        yield from self.storages
        for each in self.assembled:
            yield each.storage


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts at the top level of a file. ``metrics`` are its other numbers; floats may be
    non-finite; ``devices`` are the storages' locations, sorted.
    """

    epoch: int | None = None
    step: int | None = None
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
