"""Indexing an uploaded file: here if that takes a moment, in a child process if it could take seconds."""

import json
import mmap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..errors import NotACheckpoint
from ..formats.index import Index, index, parsing_cost
from ..formats.manifest_json import decode, encode
from ..values.manifest import Facts
from . import run

MAX_BYTES_HERE = 1_000_000
"""Bytes of pickle and directory; parsing more holds up every other request of this process."""


def index_file(path: Path) -> Index:
    """Index the checkpoint file at ``path``. Raises RefusedCheckpoint."""
    data = _map(path)
    if parsing_cost(data, MAX_BYTES_HERE) < MAX_BYTES_HERE:
        return index(data)
    manifest, facts = run(index_in_child, str(path).encode())
    fields = json.loads(facts)
    return Index(decode(manifest), Facts(**{**fields, "devices": tuple(fields["devices"])}))


def index_in_child(path: bytes) -> Sequence[bytes]:
    """What the child does: index, and give manifest and facts as byte strings."""
    found = index(_map(Path(path.decode())))
    return encode(found.manifest), json.dumps(asdict(found.facts)).encode()


def _map(path: Path) -> memoryview:
    """The file's bytes; unmapped when the last view of them goes."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise NotACheckpoint("the file is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
