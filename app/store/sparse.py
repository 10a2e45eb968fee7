"""Files with holes: where nothing was written, and whether a file is the one that it was.

Everything here but ``tells_holes`` raises OSError; callers translate it.
"""

import errno
import os
import secrets
from pathlib import Path

from ..values.span import Span
from .files import opened
from .keys import new_name

_PROBED = 1024 * 1024
_MAGIC = b"stateroom upload"
_MARK_SIZE = len(_MAGIC) + 16


def mark(fd: int, size: int) -> None:
    """Write a new mark, random bytes, behind a file's ``size`` bytes."""
    os.pwrite(fd, _MAGIC + secrets.token_bytes(_MARK_SIZE - len(_MAGIC)), size)


def mark_of(fd: int, size: int) -> str:
    """The mark at the end of a file of ``size`` bytes; where there is none, one that no other file has."""
    found = os.pread(fd, _MARK_SIZE, max(0, size - _MARK_SIZE))
    return found.removeprefix(_MAGIC).hex() if found.startswith(_MAGIC) else new_name()


def holes_in(fd: int, size: int) -> list[Span]:
    """Where in its first ``size`` bytes nothing has been written, in order. It moves the file's position."""
    holes, position = [], 0
    while position < size:
        start = os.lseek(fd, position, os.SEEK_HOLE)
        position = _data_from(fd, start, size) if start < size else size
        if start < position:
            holes.append(Span(start, position))
    return holes


def tells_holes(folder: Path) -> bool:
    """Ask the file system about a file that is one hole. Those that cannot tell say that it is all data."""
    if not hasattr(os, "SEEK_DATA"):
        return False
    probe = folder / new_name()
    try:
        with opened(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
            probe.unlink()
            os.ftruncate(fd, _PROBED)
            return _data_from(fd, 0, _PROBED) == _PROBED
    except OSError:
        return False


def _data_from(fd: int, position: int, size: int) -> int:
    """Where the next bytes are that were written; ``size`` where there are none before that."""
    try:
        return min(os.lseek(fd, position, os.SEEK_DATA), size)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size
