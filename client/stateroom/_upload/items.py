"""Files of torch.distributed.checkpoint: many files of torch.save, one behind the other. No pickle is read."""

from __future__ import annotations

import os
import struct
import zipfile
from typing import IO

from .._raw_file import RawFile
from .split import Span, storages_of_zip


def storages_of_items(file: IO[bytes], size: int) -> list[Span] | None:
    """Return the spans of the storages in all items, in order; None if one of the items cannot be read.

    The end of a zip tells where the zip begins, so the items are found from the last to the first.
    """
    spans: list[Span] = []
    end = size
    try:
        while end:
            with zipfile.ZipFile(_Beginning(file, end)) as archive:
                records = archive.infolist()
            start = min(record.header_offset for record in records)
            spans += reversed(list(storages_of_zip(file, records)))
            if start >= end:
                return None
            end = start
    except (OSError, ValueError, struct.error, zipfile.BadZipFile):
        return None  # the server's error describes the damage better
    return spans[::-1]


class _Beginning(RawFile):
    """The first ``size`` bytes of a file, as a file of their own."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(size)
        self._file = file

    def fill(self, at: int, view: memoryview) -> None:
        data = os.pread(self._file.fileno(), len(view), at)
        if len(data) < len(view):
            raise OSError("the file was truncated while it was read")
        view[:] = data
