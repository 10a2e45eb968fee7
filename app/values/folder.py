"""Files of a folder that is stored as one checkpoint, and the rules for their paths."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import BadFolder
from .span import Span

FORMAT = "folder"
"""The format of a checkpoint that is a folder."""

MAX_FILES = 10_000
MAX_PATH = 1_024
MAX_SEGMENT = 255
MAX_DEPTH = 50
"""Most files of a folder, bytes of a path in UTF-8, bytes of one name in it, and names in it: no more than file systems
take.
"""

READ_BY_NAME = (".index.json", "trainer_state.json")
"""Ends of the names of files that the server reads: their bytes belong to the frame, whatever their size."""

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Ends of the names of files that are read as checkpoints."""

DCP_METADATA = ".metadata"
DCP_ITEMS = ".distcp"
"""The name of the file that describes a save of torch.distributed.checkpoint, and the end of the names of those with
its tensors.
"""

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A checkpoint file of a folder: its format, the span of its pickle or header, and the name under which its
    contents hang. Files of one name are shards of one state_dict. ``keys`` are those of a TorchScript archive.
    """

    name: str
    format: str
    skeleton: Span
    keys: tuple[str, ...] = ()
    values: tuple[Span, ...] = ()

    @property
    def skeletons(self) -> tuple[Span, ...]:
        """The spans that have to be parsed for a plan."""
        return (self.skeleton, *self.values)


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file of a folder: its bytes lie at ``span`` of the upload. ``source`` is None for a file that is kept as it is;
    ``storage`` is the index in ``Manifest.storages`` of all its bytes, if they are a blob of their own; ``crc32`` is as
    the folder declares it, 0 for none.
    """

    path: str
    span: Span
    source: SourceFile | None = None
    storage: int | None = None
    crc32: int = 0


class PathRules:
    """Checks the paths of one folder, one by one, so that every system can hold all of them side by side."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def check(self, path: str) -> None:
        """Raise BadFolder for a path that is no plain relative path, or that clashes with an earlier one."""
        check_path(path)
        if len(self._files) >= MAX_FILES:
            raise BadFolder(f"the folder has more than {MAX_FILES:,} files", rule="too-many-files")
        folded = _folded(path)
        if (other := self._files.get(folded)) is not None:
            why = "the file comes twice" if other == path else f"its name and {other!r} are one on many systems"
            raise _refused(path, f"{why}: rename or remove one", "path-clash")
        if folded in self._folders:
            raise _refused(path, "it is both a file and a folder: rename one", "path-clash")
        self._files[folded] = path
        for folder, key in zip(folders_of(path), folders_of(folded), strict=True):
            if key in self._files:
                raise _refused(folder, "it is both a file and a folder: rename one", "path-clash")
            other = self._folders.setdefault(key, folder)
            if other != folder:
                raise _refused(path, f"its folder and {other!r} are one on many systems: rename one", "path-clash")


def check_path(path: str) -> None:
    """Raise BadFolder unless ``path`` is a plain relative path that every system can hold."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise _refused(path, "it is not valid Unicode") from None
    if not path:
        raise _refused(path, "it is empty: give each file its path within the folder")
    if size > MAX_PATH:
        raise _refused(path, f"it has {size:,} bytes; at most {MAX_PATH:,} are allowed")
    if "\\" in path:
        raise _refused(path, "it has a backslash: separate folders by /")
    if path.startswith("/"):
        raise _refused(path, "it is absolute: give the path within the folder")
    if (found := _FORBIDDEN.search(path)) is not None:
        raise _refused(path, f"it has the character {found[0]!r}, which not every system can hold in a name")
    segments = path.split("/")
    if len(segments) > MAX_DEPTH:
        raise _refused(path, f"it has {len(segments)} names; at most {MAX_DEPTH} are allowed")
    for segment in segments:
        if segment in {"", ".", ".."}:
            raise _refused(path, f"it has the segment {segment!r}: give a plain path within the folder")
        if len(segment.encode()) > MAX_SEGMENT:
            raise _refused(path, f"a name in it has more than {MAX_SEGMENT} bytes")
        if segment[-1] in " ." or _RESERVED.fullmatch(segment):
            raise _refused(path, f"Windows cannot hold the name {segment!r}: rename it")


def is_checkpoint_name(path: str) -> bool:
    """Tell whether a file is read as a checkpoint, by its name."""
    return path.lower().endswith(CHECKPOINTS)


def holds_tensors_by_name(path: str) -> bool:
    """Tell whether a file may hold tensors, by its name: a checkpoint, or items of torch.distributed.checkpoint."""
    return is_checkpoint_name(path) or path.endswith(DCP_ITEMS)


def is_read_by_name(path: str) -> bool:
    """Tell whether the server reads a file because of its name."""
    name = path.rpartition("/")[2]
    return name == DCP_METADATA or name.endswith(READ_BY_NAME)


def source_names(paths: Iterable[str]) -> dict[str, str]:
    """Return the name of each checkpoint file: its path without the extension, or with it if two would be one."""
    stems: dict[str, list[str]] = {}
    for path in paths:
        folder, slash, name = path.rpartition("/")
        stem = name.rpartition(".")[0] or name
        stems.setdefault(folder + slash + stem, []).append(path)
    return {path: stem if len(same) == 1 else path for stem, same in stems.items() for path in same}


def folders_of(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in, the outermost first."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _folded(path: str) -> str:
    """Return a text that equal names have on systems where case or the Unicode form does not count. It has as many
    slashes as ``path``, because none combines with a slash.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _refused(path: str, why: str, rule: str = "path") -> BadFolder:
    return BadFolder(f"the path {path[:200]!r} cannot be stored: {why}", rule=rule, where=path[:200])
