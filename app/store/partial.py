"""Uploads that arrive in parts: blocks in any order. They outlive connections and server processes.

<data-dir>/partial/<name>        a sparse file of the upload's full size, with holes for missing blocks, and its mark
<data-dir>/partial/<name>.pack   the same file under a second name, while a pack is made of it

Only bytes that match their digest are written, each to its one place. A second write of a block therefore writes the
same bytes, and late writers do no harm.

The mark is random and part of the file: a file that was made anew or overwritten has another mark or none.
"""

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import Conflict, Elsewhere, Gone
from ..private import FILE
from ..values.span import Span
from .failures import translated
from .files import Buffer, copy_spans, make_folder, opened, opened_folder, own_files
from .holder import Holder
from .keys import checked, is_new_name
from .open_file import OpenFile
from .room import Room
from .sparse import holes_in, mark, mark_of, tells_holes

_CANNOT_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

_SECOND = ".pack"


class PartialFile(OpenFile):
    """The open file of a partial upload. ``write`` may be called from several threads at once."""

    def __init__(self, path: Path, fd: int, size: int, room: Room, run: str, *, tells_holes: bool) -> None:
        super().__init__(path, fd, size, room)
        self._tells_holes = tells_holes
        self.stamp = f"{run}-{mark_of(fd, size)}"
        """The stamp recorded with written blocks: the run of the server and the mark of the file. Blocks with another
        stamp may be in an older file of this name, or in a file of another server.
        """

    def holes(self) -> list[Span]:
        """Spans where nothing, or only zeros, was written; the whole file if the file system cannot report holes.

        Call it only inside ``held``: it moves the file's position, and puts the position back to the end.
        """
        if not self._tells_holes:
            return [Span(0, self.size)]
        with translated("looking for holes in an upload"):
            holes = holes_in(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
        return holes

    def write(self, spans: Sequence[Span], data: Buffer) -> None:
        """Write verified bytes to ``spans``, one span after another."""
        view, start = memoryview(data), 0
        with translated("writing an upload"), self._room.growing(len(view)):
            for span in spans:
                position, end = span.start, start + span.length
                while start < end:
                    count = os.pwrite(self._fd, view[start:end], position)
                    start, position = start + count, position + count

    def sync(self) -> None:
        """Make the written bytes durable."""
        with translated("writing an upload"):
            os.fdatasync(self._fd)

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Lock the file to make a pack of it, one process at a time, and cut it to ``size`` bytes.

        Raises Conflict ``commit-in-progress``.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("this upload is already being committed", code="commit-in-progress") from None
        try:
            with translated("preparing an upload"):
                status = os.fstat(self._fd)
                try:
                    is_there = self.path.stat().st_ino == status.st_ino
                except FileNotFoundError:
                    is_there = False
                if not is_there:  # the previous holder committed it, and the file is a pack now
                    raise gone()
                if status.st_nlink > 1:
                    self._part_company()
                os.ftruncate(self._fd, size)  # cuts off bytes that an earlier attempt appended
                os.lseek(self._fd, size, os.SEEK_SET)
                self.size = size
            try:
                yield
            except BaseException:
                with suppress(OSError):  # without a mark, the next attempt checks the whole file
                    if os.fstat(self._fd).st_nlink == 1:
                        os.ftruncate(self._fd, size)
                        mark(self._fd, size)
                raise
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def given_away(self) -> Path:
        """Return a second name of the file, so that the first one stays until the pack's commit has ended."""
        path = _second(self.path)
        with translated("preparing an upload"):
            path.unlink(missing_ok=True)
            try:
                os.link(self.path, path)
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
                return self.path
        return path

    def _part_company(self) -> None:
        """Replace the file by a copy: an interrupted commit made a pack that keeps the original file."""
        copy = _second(self.path)
        copy.unlink(missing_ok=True)
        fd = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(self._fd).st_size
            with self._room.growing(size):
                copy_spans(self._fd, fd, [Span(0, size)])
            copy.rename(self.path)
        except BaseException:
            os.close(fd)
            copy.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd = fd


class Partials:
    """The folder of the partial uploads of the server ``holder``. A missing folder is made.

    Without ``room`` the uploads may fill the disk.
    """

    def __init__(self, folder: Path, holder: Holder, *, durable: bool, room: Room | None = None) -> None:
        self.holder = holder
        self.room = room or Room(folder)
        self._folder = folder
        self._durable = durable
        with translated("creating the folder of partial uploads"):
            make_folder(folder, durable=durable)
            self._tells_holes = tells_holes(folder)

    @property
    def durable(self) -> bool:
        return self._durable

    def create(self, name: str, size: int) -> None:
        """Make a file of ``size`` bytes, all of them a hole, and its mark. An existing file stays."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        with (
            translated("creating the file of an upload"),
            suppress(FileExistsError),
            opened(self._path(name), flags) as fd,
        ):
            os.ftruncate(fd, size)
            mark(fd, size)

    def holds(self, name: str) -> bool:
        with translated("checking the file of an upload"):
            return self._path(name).exists()

    def open(self, name: str) -> PartialFile:
        """Open the file of an upload; the caller closes it. Raises Gone ``upload-gone``."""
        path = self._path(name)
        with translated("opening the file of an upload"):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                raise gone() from None
            size = os.fstat(fd).st_size
            return PartialFile(path, fd, size, self.room, self.holder.run, tells_holes=self._tells_holes)

    @contextmanager
    def opened(self, name: str) -> Iterator[PartialFile]:
        """Open the file of an upload, and close it at the end."""
        file = self.open(name)
        try:
            yield file
        finally:
            file.close()

    def remove(self, name: str) -> None:
        remove(self._folder, name)

    def _path(self, name: str) -> Path:
        return self._folder / checked(name)


def names_in(folder: Path) -> set[str]:
    """The names of the uploads that have a file in ``folder``. Files that no server has written are left out."""
    with translated("listing the partial uploads"):
        if not folder.is_dir():
            return set()
        with opened_folder(folder) as fd:
            return {name.removesuffix(_SECOND) for name in own_files(fd, _is_own)}


def size_of(folder: Path, name: str) -> int:
    """Bytes on disk that removing the upload's file would free; 0 if there is no such file."""
    with translated("checking the file of an upload"):
        try:
            status = (folder / checked(name)).stat()
        except FileNotFoundError:
            return 0
    return status.st_blocks * 512 if status.st_nlink == 1 else 0


def is_held(folder: Path, name: str) -> bool:
    """Tell whether a process is making a pack of the upload's file now."""
    with translated("checking the file of an upload"):
        try:
            with opened(folder / checked(name), os.O_RDWR) as fd:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
    return False


def remove(folder: Path, name: str) -> None:
    """Remove the files of an upload."""
    path = folder / checked(name)
    with translated("removing the file of an upload"):
        for each in (path, _second(path)):
            each.unlink(missing_ok=True)


def gone() -> Gone:
    return Gone(
        "this upload does not exist: it was committed, abandoned, or has expired; announce a new one",
        code="upload-gone",
    )


def elsewhere() -> Elsewhere:
    return Elsewhere(
        "this upload is on another server with the same catalog: retry, if a load balancer may route you to that "
        "server, or announce the upload again to start it on this one"
    )


def _second(path: Path) -> Path:
    return path.with_suffix(_SECOND)


def _is_own(file: str) -> bool:
    return is_new_name(file.removesuffix(_SECOND))
