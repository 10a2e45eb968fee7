"""Indexing of a checkpoint file's bytes: its manifest and facts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import HostileCheckpoint, NoTensors
from ..values.folder import FolderFile
from ..values.manifest import Assembled, Chunk, Component, Facts, Manifest, Storage
from ..values.source import ByteSource
from ..values.span import Span
from ..values.work import Work
from .contents import list_contents
from .document import Document, KeptFile
from .facts import FACTS, lift_facts
from .readers import read
from .tree import pairs_of

MAX_LISTED = 10_000
MAX_LISTED_TEXT = 1_000_000
"""Most components, unsafe globals or devices of one checkpoint, and most characters in the names of each kind."""


@dataclass(frozen=True, slots=True)
class Index:
    """Contents of a file. The manifest's storages carry the CRC32s that the file declares (0: none), no digests."""

    manifest: Manifest
    facts: Facts


def index(data: ByteSource, work: Work | None = None) -> Index:
    """Index a checkpoint file. Raises RefusedCheckpoint with the fault and its place."""
    work = work or Work()
    document = read(data, work)
    storages, numbers = storages_of(document)
    kept, files = _kept_files(document.files, len(storages))
    assembled = _assembled(document, numbers, len(data))
    viewed = [*storages, *kept, *(each.storage for each in assembled)]
    for number, each in enumerate(assembled, start=len(storages) + len(kept)):
        numbers[each.storage.key] = number
    components, tensors = list_contents(document.root, viewed, numbers, work)
    if not components and not tensors and not storages:
        raise NoTensors("the file is a checkpoint without tensors; a checkpoint must have at least one tensor")
    _check_listing(document, components)

    def read_storage(key: str, span: Span) -> bytes | memoryview:
        if (whole := document.assembled.get(key)) is not None:  # of one element, so it has one chunk
            key, skipped = whole.chunks[0].key, whole.chunks[0].offset * whole.dtype.itemsize
            span = Span(span.start + skipped, span.end + skipped)
        start = document.records[key].start
        return data[start + span.start : start + span.end]

    top = pairs_of(document.root) or ()
    if any(not component.path for component in components):
        top = [(key, value) for key, value in top if type(key) is str and key in FACTS and type(value) in {int, float}]
    top = [*top, *document.numbers.items()]
    facts = lift_facts(top, storages, read_storage, document.byteorder, document.metadata)
    return Index(
        Manifest(
            format=document.format,
            size=len(data),
            skeleton=document.skeleton,
            storages=storages + kept,
            tensors=tensors,
            components=components,
            unsafe_globals=document.unsafe_globals,
            byteorder=document.byteorder,
            metadata=document.metadata,
            keys=document.keys,
            files=files,
            assembled=assembled,
        ),
        facts,
    )


def _assembled(document: Document, numbers: Mapping[str, int], size: int) -> tuple[Assembled, ...]:
    """Return the storages that are made of chunks. They have spans one after another, from the end of the file on."""
    found: list[Assembled] = []
    for key, ref in document.assembled.items():
        span = Span(size, size + ref.storage.nbytes)
        chunks = tuple(Chunk(one.offsets, one.sizes, numbers[one.key], one.offset, one.stride) for one in ref.chunks)
        storage = Storage(key, ref.storage.location, ref.storage.dtype, span)
        found.append(Assembled(storage, ref.dtype, ref.shape, chunks))
        size = span.end
    return tuple(found)


def _kept_files(files: Iterable[KeptFile], first: int) -> tuple[tuple[Storage, ...], tuple[FolderFile, ...]]:
    """Return a folder's files, and a storage for each that is a blob of its own; the first has the index ``first``."""
    storages: list[Storage] = []
    listed: list[FolderFile] = []
    for kept in files:
        file = kept.file
        if kept.is_blob:
            file = replace(file, storage=first + len(storages))
            storages.append(Storage(file.path, "", None, file.span, file.crc32))
        listed.append(file)
    return tuple(storages), tuple(listed)


def _check_listing(document: Document, components: Sequence[Component]) -> None:
    """Limit the fields that every listing of checkpoints shows. Raises HostileCheckpoint."""
    locations = {storage.location for storage in document.storages.values()}
    for what, rule, names in (
        ("components", "components", [component.name for component in components]),
        ("names of functions and classes", "globals", document.unsafe_globals),
        ("devices", "devices", locations),
    ):
        if len(names) > MAX_LISTED or sum(map(len, names)) > MAX_LISTED_TEXT:
            raise HostileCheckpoint(
                f"the file has {len(names)} {what}, which are too many or too long to be stored", rule=rule
            )


def storages_of(document: Document) -> tuple[tuple[Storage, ...], dict[str, int]]:
    """Return the storages in the order in which the pickle first names them, and each key's place in that order."""
    storages = tuple(
        Storage(key, ref.location, ref.dtype, document.records[key], document.checksums[key])
        for key, ref in document.storages.items()
    )
    return storages, {storage.key: number for number, storage in enumerate(storages)}
