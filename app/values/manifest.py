"""Contents of an upload: the manifest, and the plain facts copied into the catalog.

Positions are offsets in the uploaded file. Plans use these offsets; ``deliver.spans`` turns them into blobs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .digest import Digest
from .dtype import DType
from .folder import FolderFile
from .span import Span

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
    """A view of a storage. ``offset`` and ``stride`` count elements; ``storage`` indexes ``Manifest.storages``.

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
    that are blobs of their own.
    """

    format: str
    size: int
    skeleton: Span
    storages: tuple[Storage, ...]
    tensors: tuple[Tensor, ...]
    components: tuple[Component, ...]
    unsafe_globals: tuple[str, ...] = ()
    byteorder: Literal["little", "big"] = "little"
    frame: Digest | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    files: tuple[FolderFile, ...] = ()

    @property
    def skeletons(self) -> tuple[Span, ...]:
        """The spans whose bytes, one after another, have to be parsed for a plan."""
        if not self.files:
            return (self.skeleton,)
        return tuple(file.source.skeleton for file in self.files if file.source is not None)


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
