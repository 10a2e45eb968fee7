"""The files of a stored folder: their listing, and where each lies in the upload. Pure."""

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass

from ..errors import NotFound
from ..select.near import near
from ..values.digest import Digest
from ..values.folder import FolderFile
from ..values.manifest import Manifest
from ..values.thinned import optimizer_blobs


@dataclass(frozen=True, slots=True)
class StoredPath:
    """A file of a checkpoint. ``digest`` is of its bytes, None if they are not one blob; ``format`` is that of a
    checkpoint that was read, None for any other file; ``components`` are the names of those with tensors in it.
    """

    path: str
    size: int
    digest: Digest | None = None
    format: str | None = None
    components: tuple[str, ...] = ()


def files_of(manifest: Manifest) -> list[StoredPath]:
    """List the files of a folder by path. Takes a step for each of its tensors."""
    components = _components_in(manifest)
    return [
        StoredPath(
            file.path,
            file.span.length,
            digest_of(manifest, file),
            None if file.source is None else file.source.format,
            components.get(file.path, ()),
        )
        for file in manifest.files
    ]


def digest_of(manifest: Manifest, file: FolderFile) -> Digest | None:
    """Return the digest of a file that is a blob of its own, None for any other."""
    return None if file.storage is None else manifest.storages[file.storage].digest


def file_at(manifest: Manifest, path: str) -> FolderFile:
    """Return the file at a path. Raises NotFound."""
    places = [file.path for file in manifest.files]
    number = bisect_right(places, path) - 1
    if number < 0 or places[number] != path:
        close = near(path, places)
        meant = f"; did you mean {close[0][:200]!r}?" if close else ""
        raise NotFound(f"the checkpoint has no file {path[:200]!r}{meant}", code="file-not-found")
    return manifest.files[number]


def is_thinned(manifest: Manifest, file: FolderFile) -> bool:
    """Tell whether a file has bytes that thinning removes."""
    gone = optimizer_blobs(manifest)
    starts = (storage.span.start for storage in manifest.storages if storage.digest in gone)
    return any(file.span.start <= start < file.span.end for start in starts)


def _components_in(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Return the components with tensors in each file, by path."""
    files = sorted(manifest.files, key=lambda file: file.span)
    starts = [file.span.start for file in files]
    found: defaultdict[str, set[int]] = defaultdict(set)
    for tensor in manifest.tensors:
        if tensor.component is not None and tensor.storage is not None:
            for storage in manifest.stored_in(tensor.storage):
                at = bisect_right(starts, manifest.storages[storage].span.start) - 1
                found[files[at].path].add(tensor.component)
    return {path: _names(manifest, numbers) for path, numbers in found.items()}


def _names(manifest: Manifest, numbers: set[int]) -> tuple[str, ...]:
    return tuple(manifest.components[number].name for number in sorted(numbers))
