"""Reader of a safetensors file, to a Document: a flat state_dict, one storage for each tensor.

A file is the header's length in eight bytes, little-endian; the header; the tensors. A file has no pickle, so its
tree is made here, as torch.save would describe the dict from safetensors.torch.load.
"""

from struct import Struct

from ...errors import HostileCheckpoint, NotACheckpoint
from ...values.source import ByteSource
from ...values.span import Span
from ...values.work import Work
from ..dense import contiguous_storage, contiguous_tensor
from ..document import Document
from ..pickle.nodes import Dict, Node, StorageRef
from .header import Header, parse_header

FORMAT = "safetensors"

MAX_HEADER = 100_000_000
"""Bytes of header, as in the reference reader."""

_LENGTH = Struct("<Q")


def header_length(data: ByteSource) -> int | None:
    """Return the length of a file's header; None if the start is not that of a safetensors file."""
    start = bytes(data[: _LENGTH.size + 1])
    if len(start) <= _LENGTH.size or start[-1:] != b"{":
        return None
    (length,) = _LENGTH.unpack(start[:-1])
    return length if length <= MAX_HEADER else None


def read(data: ByteSource, work: Work) -> Document:
    """Read a checkpoint. Raises NotACheckpoint or HostileCheckpoint."""
    length = header_length(data) or 0
    skeleton = Span(_LENGTH.size, _LENGTH.size + length)
    if skeleton.end > len(data):
        raise NotACheckpoint("the file is truncated: it ends within its header", rule="truncated", where="header")
    header = _header(bytes(data[skeleton.start : skeleton.end]), work)
    size = skeleton.end + header.data_size
    if size > len(data):
        raise NotACheckpoint("the file is truncated: it ends within its tensors", rule="truncated", where="tensors")
    if size < len(data):
        detail = f"the safetensors file is damaged or forged: {len(data) - size} bytes follow the last tensor"
        raise HostileCheckpoint(detail, rule="trailing-bytes", where=f"byte {size}")
    root, storages = _tree(header)
    places = {
        key: Span(skeleton.end + entry.start, skeleton.end + entry.end)
        for key, entry in zip(storages, header.entries, strict=True)
    }
    return Document(
        root=root,
        format=FORMAT,
        skeleton=skeleton,
        byteorder="little",
        records=places,
        checksums=dict.fromkeys(places, 0),
        storages=storages,
        unsafe_globals=(),
        metadata=header.metadata,
    )


def tree_of(skeleton: bytes, work: Work) -> Node:
    """Parse a header to nodes."""
    return _tree(_header(skeleton, work))[0]


def _header(text: bytes, work: Work) -> Header:
    work.allow(len(text))
    work.spend(len(text))
    return parse_header(text)


def _tree(header: Header) -> tuple[Dict, dict[str, StorageRef]]:
    root = Dict()
    storages: dict[str, StorageRef] = {}
    for number, entry in enumerate(header.entries):
        storage = storages[str(number)] = contiguous_storage(entry.dtype, entry.end - entry.start, str(number))
        root.pairs.append((entry.name, contiguous_tensor(entry.dtype, entry.shape, storage)))
    return root, storages
