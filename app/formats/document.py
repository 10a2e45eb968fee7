"""The result of reading a file of any format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..values.dtype import DType
from ..values.folder import FolderFile
from ..values.span import Span
from .pickle.nodes import Node, StorageRef


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of a folder. ``is_blob``: all its bytes are one blob."""

    file: FolderFile
    is_blob: bool = False


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A Chunk of the storage with a key."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    key: str
    offset: int
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AssembledRef:
    """A storage that is made of chunks of others, for a tensor of ``shape`` and ``dtype``."""

    storage: StorageRef
    dtype: DType
    shape: tuple[int, ...]
    chunks: tuple[ChunkRef, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A checkpoint file, parsed but not interpreted.

    ``skeleton`` is the span of its pickle or header. ``records`` and ``checksums`` are, by storage key, the span of a
    storage's bytes and their CRC32 as the file declares it (0: none). ``storages`` are in the order in which the
    skeleton first names them; each has exactly the bytes of its record. ``unsafe_globals`` are the names outside of
    torch's weights_only list, in order of appearance. ``metadata`` are a safetensors file's own texts; ``keys`` are
    the keys of a TorchScript archive's state_dict, which its skeleton alone does not tell. ``files`` are those of a
    folder, and ``numbers`` are facts from beside its checkpoints. ``assembled`` are storages without a record, by key;
    ``values`` are the spans of further pickles, which the skeleton alone does not tell.
    """

    root: Node
    format: str
    skeleton: Span
    byteorder: Literal["little", "big"]
    records: Mapping[str, Span]
    checksums: Mapping[str, int]
    storages: Mapping[str, StorageRef]
    unsafe_globals: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    files: tuple[KeptFile, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    assembled: Mapping[str, AssembledRef] = field(default_factory=dict)
    values: tuple[Span, ...] = ()
