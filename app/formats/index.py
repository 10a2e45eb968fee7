"""From a checkpoint file's bytes to its manifest and facts: the one place that knows which formats there are."""

from dataclasses import dataclass

from ..errors import NoTensors
from ..values.manifest import Facts, Manifest, Storage
from .contents import list_contents
from .facts import lift_facts
from .torch_zip.archive import read_archive
from .torch_zip.directory import find_directory
from .torch_zip.read import Document, read


@dataclass(frozen=True, slots=True)
class Index:
    """What a file contains. The manifest's storages carry the CRC32s that the file declares (0: none), no digests."""

    manifest: Manifest
    facts: Facts


def index(data: memoryview) -> Index:
    """Index a checkpoint file. Raises RefusedCheckpoint: what is wrong, and where."""
    document = read(data)
    storages, numbers = storages_of(document)
    components, tensors = list_contents(document.root, storages, numbers)
    if not tensors and not storages:
        raise NoTensors("the file is a checkpoint, but there is no tensor in it: a checkpoint holds at least one")
    facts = lift_facts(document.root, storages, lambda key: data[slice_of(storages[numbers[key]])], document.byteorder)
    return Index(
        Manifest(
            format=document.format,
            size=len(data),
            skeleton=document.skeleton,
            storages=storages,
            tensors=tensors,
            components=components,
            unsafe_globals=document.unsafe_globals,
            byteorder=document.byteorder,
        ),
        facts,
    )


def parsing_cost(data: memoryview, enough: int) -> int:
    """How many bytes of directory and pickle ``index`` would parse, or at least ``enough`` if it is that many."""
    if bytes(data[:4]) != b"PK\3\4":
        return 0
    directory = find_directory(data)
    size = directory.end - directory.start
    if size >= enough:
        return size
    pickle = read_archive(data).records.get("data.pkl")
    return size if pickle is None else size + pickle.span.length


def slice_of(storage: Storage) -> slice:
    return slice(storage.span.start, storage.span.end)


def storages_of(document: Document) -> tuple[tuple[Storage, ...], dict[str, int]]:
    """The storages in the order in which the pickle first names them, and each key's place in that order."""
    storages = tuple(
        Storage(key, ref.location, ref.dtype, document.records[key], document.checksums[key])
        for key, ref in document.storages.items()
    )
    return storages, {storage.key: number for number, storage in enumerate(storages)}
