"""The files of a checkpoint, as the server describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._errors import understood
from ._parsing import kind_of


@dataclass(frozen=True)
class FileInfo:
    """A file of a checkpoint. ``digest`` is None for a file that is not stored as one blob. ``format`` is that of a
    checkpoint file, which the server has read, and ``components`` are the names of those with tensors in it; None for
    any other file, which is kept as it is.
    """

    path: str
    bytes: int
    digest: str | None
    format: str | None
    components: tuple[str, ...] = ()


@understood("a file")
def file_of(data: Mapping[str, Any]) -> FileInfo:
    """Parse the server's JSON."""
    return FileInfo(
        path=kind_of(data["path"], str),
        bytes=kind_of(data["bytes"], int),
        digest=data["digest"],
        format=data["format"],
        components=tuple(kind_of(name, str) for name in data["components"]),
    )
