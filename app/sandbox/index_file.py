"""Indexing an uploaded file: here if that is quick, otherwise in a child process."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from ..errors import HostileCheckpoint, StoreError
from ..formats.index import Index, index
from ..formats.manifest_json import decode, encode
from ..formats.readers import parsing_cost
from ..values.manifest import Facts
from ..values.work import RULE as TOO_MUCH_WORK
from ..values.work import Work
from . import CPU_SECONDS, run

MAX_BYTES_HERE = 300_000
"""Bytes of pickle and directory; parsing more holds up every other request of this process.

An honest checkpoint takes 0.4 s a MB. A file that takes more work for its bytes is left to the child.
"""

MIN_SECONDS = 10
SECONDS_PER_MB = 1.5
"""CPU time in the child, four times what an honest checkpoint takes."""

PAGE_SIZE = 4096


class FileBytes:
    """The bytes of an open file, read on demand.

    A small slice is served from the last page read, if it lies there, as the headers of small records do.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._size = os.fstat(file).st_size
        self._page = b""
        self._page_start = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        if stop - start > PAGE_SIZE:
            return self._read(start, stop)
        if not self._page_start <= start <= stop <= self._page_start + len(self._page):
            self._page = self._read(start, min(start + PAGE_SIZE, self._size))
            self._page_start = start
        return self._page[start - self._page_start : stop - self._page_start]

    def _read(self, start: int, stop: int) -> bytes:
        pieces = []
        while start < stop:
            piece = os.pread(self._file, stop - start, start)
            if not piece:
                raise StoreError("an uploaded file was truncated while it was read")
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)


def index_file(path: Path, cancelled: Callable[[], bool] = lambda: False) -> Index:
    """Index the checkpoint file at ``path``. Raises RefusedCheckpoint, and Cancelled once ``cancelled()`` is true."""
    with path.open("rb") as file:
        data = FileBytes(file.fileno())
        if parsing_cost(data, MAX_BYTES_HERE) < MAX_BYTES_HERE:
            try:
                return index(data, Work.here())
            except HostileCheckpoint as error:
                if error.rule != TOO_MUCH_WORK:
                    raise
        seconds = min(CPU_SECONDS, MIN_SECONDS + int(SECONDS_PER_MB * len(data) / 1e6))
    manifest, facts = run(index_in_child, str(path).encode(), seconds=seconds, cancelled=cancelled)
    fields = json.loads(facts)
    return Index(decode(manifest), Facts(**{**fields, "devices": tuple(fields["devices"])}))


def index_in_child(path: bytes) -> Sequence[bytes]:
    """Index in the child process. Return manifest and facts as byte strings."""
    with Path(path.decode()).open("rb") as file:
        found = index(FileBytes(file.fileno()))
    facts = json.dumps(asdict(found.facts), ensure_ascii=False)  # as in the manifest: lone surrogates are kept
    return encode(found.manifest), facts.encode("utf-8", "surrogatepass")
