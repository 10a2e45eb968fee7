"""The files of a folder in its zip: their paths and places, checked."""

from ...errors import NotACheckpoint
from ...values.folder import PathRules, holds_tensors_by_name
from ...values.source import ByteSource
from ..foreign import foreign_zip, is_foreign_archive
from ..torch_zip.directory import Directory
from ..torch_zip.records import Record, name_of, names_in, read_records


def is_torch_zip(directory: Directory, entries: bytes) -> bool:
    """Tell whether a zip is torch's own: it has a ``data.pkl`` one level below its top."""
    if b"/data.pkl" not in entries:
        return False
    return any(name.endswith(b"/data.pkl") and name.count(b"/") == 1 for name in names_in(directory, entries))


def read_entries(data: ByteSource, directory: Directory, entries: bytes) -> dict[str, Record]:
    """Return the files of a folder by path, sorted. Raises BadFolder for their paths, HostileCheckpoint for a broken
    zip, NotACheckpoint for one that is compressed, or that is another program's file.
    """
    names = [name.decode("utf-8", "replace") for name in names_in(directory, entries)]
    if is_foreign_archive(entries) or not any(map(holds_tensors_by_name, names)):
        raise NotACheckpoint(f"the file is {foreign_zip(entries)}", rule="no-pickle")
    files: dict[str, Record] = {}
    rules = PathRules()
    for entry, record in read_records(data, directory, entries, folders=True):
        path = name_of(entry)
        if entry.is_folder:
            continue
        rules.check(path)
        if record.inflated is not None:
            raise NotACheckpoint(
                f"{path[:200]!r} is compressed in the zip: pack the folder without compression (zip -0 -r), or upload "
                "the folder itself",
                rule="zip-deflated",
                where=path[:200],
            )
        files[path] = record
    return dict(sorted(files.items()))
