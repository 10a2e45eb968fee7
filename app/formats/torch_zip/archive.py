"""Zip files as torch writes them: all records lie in one root folder, and one is the pickle."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import NotACheckpoint
from ...values.source import ByteSource
from ..foreign import foreign_zip
from .directory import find_directory
from .records import Entry, Record, name_of, read_records

_CONSTANTS = "constants.pkl"
"""A record that only TorchScript archives have."""
_CODE = "code/"

_PLAIN_PATH = re.compile(r"(?!\.\.?/)[^/\\\0]+(?:/(?!\.\.?(?:/|\Z))[^/\\\0]+)+")
"""At least one folder, and no part that could lead out of the folder."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file. ``records`` are by name without the root folder, in the order of the file."""

    root: str
    records: Mapping[str, Record]

    @property
    def is_torchscript(self) -> bool:
        return _CONSTANTS in self.records


def read_archive(data: ByteSource) -> Archive:
    """Read a zip's directory and check its whole structure, with a data.pkl. No record's content is read.

    Raises NotACheckpoint for a file that is no zip, ends early or is not torch's, HostileCheckpoint for a broken rule.
    """
    directory = find_directory(data)
    entries = bytes(data[directory.start : directory.end])
    if b"/data.pkl" not in entries:
        raise _no_pickle(entries)  # first, or the strict rules for torch's own zips would call any other zip forged
    records: dict[str, Record] = {}
    folded: set[str] = set()
    root = ""
    for entry, record in read_records(data, directory, entries):
        path = _path(entry)
        root = root or path[: path.index("/") + 1]
        if not path.startswith(root):
            raise entry.refused("zip-root", f"is outside the root folder {root[:200]!r}")
        name = path[len(root) :]
        folded.add(name if name.isascii() and name.islower() else name.casefold())
        if len(folded) == len(records):
            raise entry.refused("zip-duplicate", "has the same name as another record, ignoring case")
        records[name] = record
    if "data.pkl" not in records:
        raise _no_pickle(entries)
    archive = Archive(root[:-1], records)
    _check_stored(archive)
    return archive


def _check_stored(archive: Archive) -> None:
    """Check that only a program's text is deflated: a range of any other record is a range of the file."""
    for name, record in archive.records.items():
        if record.inflated is not None and not (archive.is_torchscript and name.startswith(_CODE)):
            detail = f"record {name[:200]!r} is deflated, which torch.save never does: store it uncompressed"
            raise NotACheckpoint(detail, rule="zip-deflated", where=name[:200])


def _path(entry: Entry) -> str:
    """Return a record's name. Refuse a name other than of a plain file below a folder."""
    path = name_of(entry)
    if not _PLAIN_PATH.fullmatch(path):
        raise entry.refused("zip-name", "has a name that is not a plain path below one folder")
    return path


def _no_pickle(entries: bytes) -> NotACheckpoint:
    return NotACheckpoint(f"the file is {foreign_zip(entries)}", rule="no-pickle")
