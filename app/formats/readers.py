"""All formats: detection of a file's format, and the reader of each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from ..errors import NotACheckpoint, RefusedCheckpoint
from ..values.folder import DCP_METADATA, SourceFile, is_checkpoint_name, is_read_by_name
from ..values.folder import FORMAT as FOLDER
from ..values.manifest import Manifest
from ..values.source import ByteSource
from ..values.work import Work
from .dcp import read as dcp
from .document import Document
from .folder import read as folder
from .folder.entries import is_torch_zip
from .folder.entries import read_entries as folder_entries
from .foreign import foreign_file
from .part import Part
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
    if manifest.format == FOLDER:
        return folder.tree_of(manifest.files, skeleton, _parse_file, work)
    return _parse(manifest.format, skeleton, manifest.keys, work)


def _parse_file(source: SourceFile, skeletons: Sequence[bytes], work: Work) -> Node:
    if source.format == dcp.FORMAT:
        return dcp.tree_of(skeletons, source.keys, DCP_METADATA, work)
    return _parse(source.format, skeletons[0], source.keys, work)


def _parse(kind: str, skeleton: bytes, keys: Iterable[str], work: Work) -> Node:
    if kind == torchscript.FORMAT:
        return torchscript.tree_of(skeleton, keys, work)
    return _TREES[kind](skeleton, work)


def read(data: ByteSource, work: Work | None = None) -> Document:
    """Read a checkpoint of any format. Raises a RefusedCheckpoint."""
    work = work or Work()
    if _is_zip(data):
        directory = find_directory(data)
        entries = bytes(data[directory.start : directory.end])
        if not is_torch_zip(directory, entries):
            return folder.read(data, directory, entries, _read_file, work)
    return _read_file(data, work)


def _read_file(data: ByteSource, work: Work) -> Document:
    """Read a checkpoint that is one file. Raises NotACheckpoint, HostileCheckpoint or ShardedTensor."""
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
    if not _is_zip(data):
        return _cost_of_file(data, enough)
    directory = find_directory(data)
    size = directory.end - directory.start
    if size >= enough:
        return size
    entries = bytes(data[directory.start : directory.end])
    if is_torch_zip(directory, entries):
        return _cost_of_file(data, enough)
    for path, record in folder_entries(data, directory, entries).items():
        if size >= enough:
            break
        if is_read_by_name(path):
            size += record.span.length
        elif is_checkpoint_name(path):
            with suppress(RefusedCheckpoint):  # the reader says more
                size += _cost_of_file(Part(data, record.span), enough)
    return size


def _cost_of_file(data: ByteSource, enough: int) -> int:
    length = safetensors.header_length(data)
    if length is not None and not _is_zip(data):
        return length
    if not _is_zip(data):
        return min(len(data), enough) if torch_legacy.is_legacy(data) else 0  # a pickle's length is not stored
    directory = find_directory(data)
    size = directory.end - directory.start
    if size >= enough:
        return size
    archive = read_archive(data)
    code = code_size(archive) if archive.is_torchscript else 0
    return size + code + archive.records["data.pkl"].span.length


def _is_zip(data: ByteSource) -> bool:
    return bytes(data[:4]) == b"PK\3\4"
