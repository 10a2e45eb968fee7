"""The saves of torch.distributed.checkpoint in a folder: each a ``.metadata`` file, and the files that it names."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import BadFolder
from ...values.folder import DCP_ITEMS, DCP_METADATA
from ...values.work import Work
from ..dcp.read import read
from ..document import Document
from ..part import Part

_HEAD = 4096
_MODULE = b"torch.distributed.checkpoint"


@dataclass(frozen=True, slots=True)
class Save:
    """A save, and the paths of the files with its items."""

    document: Document
    files: frozenset[str]


def find_saves(parts: Mapping[str, Part], work: Work) -> dict[str, Save]:
    """Read the saves in a folder, by the paths of their ``.metadata``. Raises RefusedCheckpoint."""
    with_items = {_folder_of(path) for path in parts if path.endswith(DCP_ITEMS)}
    found = [
        path
        for path, part in parts.items()
        if path.rpartition("/")[2] == DCP_METADATA
        and (_folder_of(path) in with_items or _MODULE in bytes(part[:_HEAD]))
    ]
    tops = {_folder_of(path) for path in found}
    for path in parts:
        if path.endswith(DCP_ITEMS) and not any(path.startswith(top) for top in tops):
            raise BadFolder(
                f"{path[:200]!r} belongs to a save of torch.distributed.checkpoint, but no {DCP_METADATA} is beside "
                "it: it is written last, so the save has not ended, or the file was not uploaded",
                rule="dcp-missing",
                where=path[:200],
            )
    return {path: Save(*read(path, parts, work)) for path in found}


def with_names_of_saves(names: dict[str, str], saves: Mapping[str, Save]) -> dict[str, str]:
    """Return the names of checkpoint files, with saves called by their folders."""
    taken = set(names.values())
    folders = {path: _folder_of(path)[:-1] for path in saves}
    return names | {path: folder for path, folder in folders.items() if folder and folder not in taken}


def _folder_of(path: str) -> str:
    return path[: path.rfind("/") + 1]
