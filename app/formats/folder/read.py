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
from ..document import AssembledRef, Document, KeptFile
from ..part import Part
from ..pickle.nodes import Node, StorageRef
from ..storage_keys import storage_key, with_keys_of_its_own
from ..torch_zip.directory import Directory
from ..torch_zip.records import Record
from .distributed import find_saves, with_names_of_saves
from .entries import read_entries
from .facts import trainer_facts
from .merge import check_shards, joined
from .shards import Shards, find_shards

ReadFile = Callable[[ByteSource, Work], Document]
"""Reads one file. Raises RefusedCheckpoint."""

TreeOf = Callable[[SourceFile, Sequence[bytes], Work], Node]
"""Parses the skeletons of a file."""

_NOT_A_CHECKPOINT = frozenset({"magic", "tar", "no-pickle"})
"""Rules broken by a file that merely has the name of a checkpoint."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A checkpoint file of the folder. ``number`` is its place among all files; the spans of its document count from
    ``start`` on.
    """

    number: int
    path: str
    name: str
    document: Document
    start: int


def read(data: ByteSource, directory: Directory, entries: bytes, read_file: ReadFile, work: Work) -> Document:
    """Read a folder. Raises RefusedCheckpoint, with the path of the file that is wrong."""
    records = read_entries(data, directory, entries)
    parts = {path: Part(data, record.span) for path, record in records.items()}
    shards = find_shards(parts, work)
    saves = find_saves(parts, work)
    documents = {path: save.document for path, save in saves.items()} | {
        path: document
        for path, part in parts.items()
        if is_checkpoint_name(path) and (document := _read_file(path, part, read_file, work)) is not None
    }
    for path in shards.head_of.keys() - documents.keys():
        raise BadFolder(f"the shard {path[:200]!r} holds no tensors", rule="shard-kind", where=path[:200])
    names = with_names_of_saves(source_names({shards.head_of.get(path, path) for path in documents}), saves)
    starts = {path: 0 if path in saves else record.start for path, record in records.items()}
    sources = [
        _Source(number, path, names[shards.head_of.get(path, path)], documents[path], starts[path])
        for number, path in enumerate(parts)
        if path in documents
    ]
    for source in sources:
        with_keys_of_its_own(source.number, source.document.root, work)
    _check_shards(sources, shards, work)
    storages, places, checksums = _storages(sources)
    with_items = frozenset[str]().union(*(save.files for save in saves.values()))
    by_path = {source.path: source for source in sources}
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
            _kept(path, record, parts[path], by_path.get(path), has_items=path in with_items)
            for path, record in records.items()
        ),
        assembled=_assembled(sources),
    )


def tree_of(files: Sequence[FolderFile], skeleton: bytes, parse: TreeOf, work: Work) -> Node:
    """Parse the joined skeletons of a folder's files to the nodes that ``read`` made."""
    roots, start = [], 0
    for number, file in enumerate(files):
        if (source := file.source) is not None:
            pickles = []
            for span in source.skeletons:
                pickles.append(skeleton[start : start + span.length])
                start += span.length
            roots.append((source.name, with_keys_of_its_own(number, parse(source, pickles, work), work)))
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
    sources: Iterable[_Source],
) -> tuple[dict[str, StorageRef], dict[str, Span], dict[str, int]]:
    storages, places, checksums = {}, {}, {}
    for source in sources:
        for key, ref in source.document.storages.items():
            own, span = storage_key(source.number, key), source.document.records[key]
            storages[own] = ref
            places[own] = Span(source.start + span.start, source.start + span.end)
            checksums[own] = source.document.checksums[key]
    return storages, places, checksums


def _assembled(sources: Iterable[_Source]) -> dict[str, AssembledRef]:
    """Return the assembled storages by the keys that they and their chunks have in the folder."""
    return {
        storage_key(source.number, key): replace(
            ref, chunks=tuple(replace(chunk, key=storage_key(source.number, chunk.key)) for chunk in ref.chunks)
        )
        for source in sources
        for key, ref in source.document.assembled.items()
    }


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


def _kept(path: str, record: Record, part: Part, source: _Source | None, *, has_items: bool) -> KeptFile:
    """Describe a file. Its bytes are a blob if they are many, and nothing in them has to be read to plan a download."""
    file = FolderFile(path, record.span, crc32=record.crc32)
    if source is not None:
        document, start = source.document, source.start
        skeleton = Span(start + document.skeleton.start, start + document.skeleton.end)
        as_source = SourceFile(source.name, document.format, skeleton, document.keys, document.values)
        return KeptFile(replace(file, source=as_source))
    is_read = has_items or is_read_by_name(path) or (is_checkpoint_name(path) and bytes(part[:4]) == b"PK\3\4")
    return KeptFile(file, is_blob=record.span.length > MIN_BLOB_SIZE and not is_read)
