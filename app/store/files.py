"""Moving bytes between buffers, files and disks: what the packs and the spool have in common.

Everything here raises OSError; callers translate it.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..private import FILE, FOLDER
from ..values.span import Span

Buffer = bytes | bytearray | memoryview

_COPY_SIZE = 1024 * 1024
_CANNOT_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})

_CANNOT_SYNC = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL})  # nor could we have made a name there


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A file descriptor of ``path``, closed at the end."""
    fd = os.open(path, flags | os.O_CLOEXEC, FILE)
    try:
        yield fd
    finally:
        os.close(fd)


def write_all(fd: int, data: Buffer) -> None:
    """Write all of ``data`` at the file's position."""
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(fd, left) :]


def copy_spans(source: int, target: int, spans: Sequence[Span]) -> None:
    """Append ``spans`` of the file ``source`` at the position of ``target``, inside the kernel where it can.

    The two may be one file, as long as no span reaches beyond its position. OSError (EIO) when the source is too short.
    """
    for span in spans:
        done = span.start
        while done < span.end:
            count = _copy(source, target, done, span.end - done)
            if count == 0:
                raise OSError(errno.EIO, "the source ended early")
            done += count


def _copy(source: int, target: int, offset: int, length: int) -> int:
    """Copy up to ``length`` bytes and tell how many; 0 only at the end of the source."""
    if hasattr(os, "copy_file_range"):
        try:
            if count := os.copy_file_range(source, target, length, offset):
                return count
        except OSError as error:  # across devices, or on a file system that cannot
            if error.errno not in _CANNOT_COPY:
                raise
    data = os.pread(source, min(length, _COPY_SIZE), offset)
    write_all(target, data)
    return len(data)


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in ``folder`` durable."""
    with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def make_folder(folder: Path, *, durable: bool) -> None:
    """Make ``folder`` and those above it where they are not there, for their owner alone, so that their names survive
    a crash.

    The name of one that is there is made durable too: a crash may have come between its making and its sync. Names
    are synced from the top down, so those above it are durable already.
    """
    if folder.is_dir():
        if durable:
            _sync_name(folder)
        return
    make_folder(folder.parent, durable=durable)
    folder.mkdir(FOLDER, exist_ok=True)
    if durable:
        sync_folder(folder.parent)


def _sync_name(folder: Path) -> None:
    try:
        sync_folder(folder.parent)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


@contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """A file descriptor of ``folder``, to reach what lies in it without following its path again."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def own_files(folder: int, is_own: Callable[[str], bool]) -> Iterator[str]:
    """The names in an open ``folder`` that a server has given: regular files, its own, called as it calls them.

    Operators put folders behind symlinks, on disks that others use too; so nothing else there is ever touched.
    """
    for name in os.listdir(folder):
        if not is_own(name):
            continue
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            yield name
