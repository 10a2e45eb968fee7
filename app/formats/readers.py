"""All formats: detection of a file's format, and the reader of each."""

from collections.abc import Callable, Mapping

from ..errors import NotACheckpoint
from ..values.manifest import Manifest
from ..values.source import ByteSource
from ..values.work import Work
from .document import Document
from .foreign import foreign_file
from .pickle.nodes import Node
from .safetensors import read as safetensors
from .torch_legacy import read as torch_legacy
from .torch_legacy.tar import is_tar
from .torch_zip import read as torch_zip
from .torch_zip.archive import read_archive
from .torch_zip.directory import find_directory
from .torchscript import read as torchscript
from .torchscript.code import code_size

_TREES: Mapping[str, Callable[[bytes, Work], Node]] = {
    torch_zip.FORMAT: torch_zip.tree_of,
    torch_legacy.FORMAT: torch_legacy.tree_of,
    safetensors.FORMAT: safetensors.tree_of,
}


def tree_of(manifest: Manifest, skeleton: bytes, work: Work | None = None) -> Node:
    """Parse a skeleton to the nodes that its reader made at upload."""
    work = work or Work()
    if manifest.format == torchscript.FORMAT:
        return torchscript.tree_of(skeleton, manifest.keys, work)
    return _TREES[manifest.format](skeleton, work)


def read(data: ByteSource, work: Work | None = None) -> Document:
    """Read a checkpoint of any format. Raises NotACheckpoint, HostileCheckpoint or ShardedTensor."""
    work = work or Work()
    if _is_zip(data):
        archive = read_archive(data)
        document = torch_zip.read(data, archive, work)
        return torchscript.read(document, data, archive, work) if archive.is_torchscript else document
    if torch_legacy.is_legacy(data) and not is_tar(data):
        return torch_legacy.read(data, work)
    if safetensors.header_length(data) is not None:
        return safetensors.read(data, work)
    rule = "magic"
    if not len(data):
        detail = "the file is empty"
    elif is_tar(data):
        rule = "tar"
        detail = (
            "the file is a tar archive: upload the checkpoints inside one by one. If it is a checkpoint in torch's "
            "oldest format, load it with torch.load(weights_only=False) and save it again with torch.save"
        )
    elif foreign := foreign_file(data):
        detail = f"the file is {foreign}"
    else:
        detail = (
            "the file was not written by torch.save or safetensors: it must start with the bytes PK 3 4, torch's magic "
            "number, or the length of a safetensors header"
        )
    raise NotACheckpoint(detail, rule=rule, where="byte 0")


def parsing_cost(data: ByteSource, enough: int) -> int:
    """Most bytes that ``read`` would parse, or at least ``enough`` if it may parse that many."""
    length = safetensors.header_length(data)
    if length is not None and not _is_zip(data):
        return length
    if not _is_zip(data):
        return min(len(data), enough)  # a pickle's length is not stored
    directory = find_directory(data)
    size = directory.end - directory.start
    if size >= enough:
        return size
    archive = read_archive(data)
    code = code_size(archive) if archive.is_torchscript else 0
    return size + code + archive.records["data.pkl"].span.length


def _is_zip(data: ByteSource) -> bool:
    return bytes(data[:4]) == b"PK\3\4"
