"""Files that appear under their names only when they are complete."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .._errors import InvalidRequest


@contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write, which gets its name when the block succeeds; after an error nothing is left of it."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with partial.open("x+b") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def named_in(path: Path, model: str, version: int, suffix: str) -> Path:
    """Return the path, or if it is a folder, the file ``NAME-vVERSION`` + ``suffix`` in it. The name is the requested
    one, because the server's answer must not choose a folder. Raises InvalidRequest if such a name would.
    """
    if not path.is_dir():
        return path
    name = f"{model.partition('/')[2]}-v{version}{suffix}"
    if "/" in name or "\\" in name:
        raise InvalidRequest(f"{name!r} is not a valid file name; pass the path of a file instead of a folder")
    return path / name
