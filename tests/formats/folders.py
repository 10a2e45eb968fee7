"""Folders as zips, for the reader."""

import io
import zipfile
from collections.abc import Mapping


def folder(files: Mapping[str, bytes]) -> bytes:
    """Zip files without compression, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return buffer.getvalue()
