"""Loose files: files that were written by name, and belong to no checkpoint yet."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class LooseFile:
    """A loose file of ``size`` bytes. Its ``number`` is higher than those of all files that the namespace had before.
    ``replaced`` is the number of the newest file under this path by another writer, None if there was none.
    """

    number: int
    path: str
    size: int
    written_at: datetime
    replaced: int | None


@dataclass(frozen=True, slots=True)
class NewLooseFile:
    """A file to be written. ``recipe`` is what its bytes are made of: JSON of ``recipe_bytes``, compressed; None for a
    file that is removed. ``writer`` names the process that wrote the file.
    """

    path: str
    size: int
    recipe: bytes | None
    recipe_bytes: int
    writer: str
