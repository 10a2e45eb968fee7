"""File operations that the packs and the spool share: copying, writing, fsync and making folders.

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

_CANNOT_SYNC = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL})  # nor could we make a name there


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
    """Append ``spans`` of the file ``source`` at the position of ``target``, inside the kernel where possible.

    Both may be the same file if no span reaches beyond its position. Raises OSError (EIO) if the source is too short.
    """
    for span in spans:
        done = span.start
        while done < span.end:
            count = _copy(source, target, done, span.end - done)
            if count == 0:
                raise OSError(errno.EIO, "the source ended early")
            done += count


def _copy(source: int, target: int, offset: int, length: int) -> int:
    """Copy up to ``length`` bytes and return their number; 0 only at the end of the source."""
    if hasattr(os, "copy_file_range"):
        try:
            if count := os.copy_file_range(source, target, length, offset):
                return count
        except OSError as error:  # across devices, or not supported by the file system
            if error.errno not in _CANNOT_COPY:
                raise
    data = os.pread(source, min(length, _COPY_SIZE), offset)
    write_all(target, data)
    return len(data)


def sync_folder(folder: Path) -> None:
    """Make created, renamed and removed names in ``folder`` durable."""
    with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def make_folder(folder: Path, *, durable: bool) -> None:
    """Make ``folder`` and its missing parents, readable by their owner only. Their names survive a crash.

    The name of an existing folder is synced too, because a crash may have come between its creation and its sync.
    Names are synced from the top down, so the parents of an existing folder are durable already.
    """
    if folder.is_dir():
        if durable:
            _sync_name(folder)
        return
    make_folder(folder.parent, durable=durable)
    folder.mkdir(FOLDER, exist_ok=True)
    if durable:
        sync_folder(folder.parent)


def remove_folder(folder: Path) -> bool:
    """Remove an empty folder; False if there is none, or if it is not empty."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        return False
    return True


def _sync_name(folder: Path) -> None:
    try:
        sync_folder(folder.parent)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


@contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """A file descriptor of ``folder``, to reach its files without following its path again."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def own_files(folder: int, is_own: Callable[[str], bool]) -> Iterator[str]:
    """The names of the server's own files in an open ``folder``: regular files of its user, with names it gives.

    Other files are never touched, because operators put folders behind symlinks on disks that others use too.
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
