"""Sparse files: finding their holes, and marking a file so that it can be recognised.

All functions except ``tells_holes`` raise OSError; callers translate it.
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
    """Write a new mark of random bytes after a file's ``size`` bytes."""
    os.pwrite(fd, _MAGIC + secrets.token_bytes(_MARK_SIZE - len(_MAGIC)), size)


def mark_of(fd: int, size: int) -> str:
    """The mark at the end of a file of ``size`` bytes. A file without a mark gets a new unique value."""
    found = os.pread(fd, _MARK_SIZE, max(0, size - _MARK_SIZE))
    return found.removeprefix(_MAGIC).hex() if found.startswith(_MAGIC) else new_name()


def holes_in(fd: int, size: int) -> list[Span]:
    """The holes in a file's first ``size`` bytes, in order. Moves the file's position."""
    holes, position = [], 0
    while position < size:
        start = os.lseek(fd, position, os.SEEK_HOLE)
        position = _data_from(fd, start, size) if start < size else size
        if start < position:
            holes.append(Span(start, position))
    return holes


def tells_holes(folder: Path) -> bool:
    """Tell whether the file system reports holes. The probe is a file that is one hole; other systems call it data."""
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
    """The offset of the next written bytes; ``size`` if there are none before it."""
    try:
        return min(os.lseek(fd, position, os.SEEK_DATA), size)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size
