"""Reader of a folder, to a Document: the documents of its checkpoint files, moved to their places and joined."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...errors import BadFolder, NotACheckpoint, RefusedCheckpoint
from ...values.folder import FORMAT, FolderFile, SourceFile, is_checkpoint_name, is_read_by_name, source_names
from ...values.manifest import MIN_BLOB_SIZE
from ...values.source import ByteSource
from ...values.span import Span
from ...values.work import Work
from ..document import Document, KeptFile
from ..pickle.nodes import Node, StorageRef
from ..torch_zip.directory import Directory
from ..torch_zip.records import Record
from .entries import Part, read_entries
from .facts import trainer_facts
from .merge import check_shards, joined, storage_key, with_keys_of_its_own
from .shards import Shards, find_shards

ReadFile = Callable[[ByteSource, Work], Document]
"""Reads one file. Raises RefusedCheckpoint."""

TreeOf = Callable[[str, bytes, Iterable[str], Work], Node]
"""Parses a skeleton of a format, with the keys of a TorchScript archive."""

_NOT_A_CHECKPOINT = frozenset({"magic", "tar", "no-pickle"})
"""Rules broken by a file that merely has the name of a checkpoint."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A checkpoint file of the folder. ``number`` is its place among all files."""

    number: int
    path: str
    name: str
    document: Document


def read(data: ByteSource, directory: Directory, entries: bytes, read_file: ReadFile, work: Work) -> Document:
    """Read a folder. Raises RefusedCheckpoint, with the path of the file that is wrong."""
    records = read_entries(data, directory, entries)
    parts = {path: Part(data, record.span) for path, record in records.items()}
    shards = find_shards(parts, work)
    documents = {
        path: document
        for path, part in parts.items()
        if is_checkpoint_name(path) and (document := _read_file(path, part, read_file, work)) is not None
    }
    for path in shards.head_of.keys() - documents.keys():
        raise BadFolder(f"the shard {path[:200]!r} holds no tensors", rule="shard-kind", where=path[:200])
    names = source_names({shards.head_of.get(path, path) for path in documents})
    sources = [
        _Source(number, path, names[shards.head_of.get(path, path)], documents[path])
        for number, path in enumerate(parts)
        if path in documents
    ]
    for source in sources:
        with_keys_of_its_own(source.number, source.document.root, work)
    _check_shards(sources, shards, work)
    storages, places, checksums = _storages(sources, records)
    numbers = trainer_facts(parts, work)
    return Document(
        root=joined((source.name, source.document.root) for source in sources),
        format=FORMAT,
        skeleton=Span(0, 0),
        byteorder=_byteorder(sources),
        records=places,
        checksums=checksums,
        storages=storages,
        unsafe_globals=tuple(dict.fromkeys(name for each in sources for name in each.document.unsafe_globals)),
        metadata=_metadata(sources),
        numbers=numbers,
        files=tuple(
            _kept(path, record, parts[path], documents.get(path), names, shards) for path, record in records.items()
        ),
    )


def tree_of(files: Sequence[FolderFile], skeleton: bytes, parse: TreeOf, work: Work) -> Node:
    """Parse the joined skeletons of a folder's files to the nodes that ``read`` made."""
    roots, start = [], 0
    for number, file in enumerate(files):
        if (source := file.source) is not None:
            end = start + source.skeleton.length
            root = parse(source.format, skeleton[start:end], source.keys, work)
            roots.append((source.name, with_keys_of_its_own(number, root, work)))
            start = end
    return joined(roots)


def _read_file(path: str, part: Part, read_file: ReadFile, work: Work) -> Document | None:
    """Read one file; None if it only has the name of a checkpoint, or is an object without tensors."""
    try:
        document = read_file(part, work)
    except RefusedCheckpoint as error:
        is_other = isinstance(error, NotACheckpoint) and error.rule in _NOT_A_CHECKPOINT
        if is_other and not path.lower().endswith(".safetensors") and bytes(part[:8]) != b"version ":
            return None
        error.detail = f"{path[:200]!r} in the folder: {error.detail}"
        error.where = path[:200] if error.where is None else f"{path[:200]}, {error.where}"
        raise
    return None if document.unsafe_globals and not document.storages else document


def _check_shards(sources: Sequence[_Source], shards: Shards, work: Work) -> None:
    by_head: dict[str, list[_Source]] = {}
    for source in sources:
        if source.path in shards.head_of:
            by_head.setdefault(shards.head_of[source.path], []).append(source)
        elif source.path in shards.head_of.values():
            raise BadFolder(
                f"{source.path[:200]!r} and shards of it are both in the folder: upload one of the two",
                rule="shard-overlap",
                where=source.path[:200],
            )
    for some in by_head.values():
        paths, roots = [each.path for each in some], [each.document.root for each in some]
        check_shards(paths, roots, shards.keys_of, work)


def _storages(
    sources: Iterable[_Source], records: dict[str, Record]
) -> tuple[dict[str, StorageRef], dict[str, Span], dict[str, int]]:
    storages, places, checksums = {}, {}, {}
    for source in sources:
        offset = records[source.path].start
        for key, ref in source.document.storages.items():
            own, span = storage_key(source.number, key), source.document.records[key]
            storages[own] = ref
            places[own] = Span(offset + span.start, offset + span.end)
            checksums[own] = source.document.checksums[key]
    return storages, places, checksums


def _byteorder(sources: Sequence[_Source]) -> Literal["little", "big"]:
    orders = {source.document.byteorder: source.path for source in sources if source.document.storages}
    if len(orders) > 1:
        raise BadFolder(
            f"{orders['little'][:200]!r} is little-endian, and {orders['big'][:200]!r} is big-endian: save them on one "
            "machine",
            rule="byteorder",
            where=orders["big"][:200],
        )
    return next(iter(orders), "little")


def _metadata(sources: Sequence[_Source]) -> dict[str, str]:
    """Return the texts that all files of the only state_dict have in common."""
    if len({source.name for source in sources}) != 1:
        return {}
    first, *others = (source.document.metadata for source in sources)
    return {name: text for name, text in first.items() if all(other.get(name) == text for other in others)}


def _kept(
    path: str, record: Record, part: Part, document: Document | None, names: dict[str, str], shards: Shards
) -> KeptFile:
    """Describe a file. Its bytes are a blob if they are many, and nothing in them has to be read to plan a download."""
    file = FolderFile(path, record.span, crc32=record.crc32)
    if document is not None:
        start = record.start
        skeleton = Span(start + document.skeleton.start, start + document.skeleton.end)
        name = names[shards.head_of.get(path, path)]
        return KeptFile(replace(file, source=SourceFile(name, document.format, skeleton, document.keys)))
    is_read = is_read_by_name(path) or (is_checkpoint_name(path) and bytes(part[:4]) == b"PK\3\4")
    return KeptFile(file, is_blob=record.span.length > MIN_BLOB_SIZE and not is_read)
