"""The store that keeps packs as files in a local folder."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from ..errors import StoreError
from ..private import FILE, FOLDER, shut
from ..values.span import Span
from ..values.tracing import as_step
from .failures import translated
from .files import Buffer, copy_spans, make_folder, opened, remove_folder, sync_folder, write_all
from .keys import (
    PACKS,
    area_key,
    area_of,
    checked_object,
    is_area,
    is_in_area,
    is_joined,
    list_key,
    listed_in,
    name_in,
    new_name,
    pack_key,
    part_key,
)
from .pack_list import ObjectSpan, PackList, PackLists, Stretch
from .pack_store import PresignedSpan, StoredPack
from .room import Room
from .windows import read_window


class LocalPackStore:
    """A PackStore under the folder ``root``. A missing folder is made; without ``make`` it is a StoreError.

    A pack gets its name only when its bytes are on disk, and the name counts only when it would survive a crash: fsync
    of the file, rename, fsync of the folder. ``durable=False`` leaves out every fsync.

    Only the server's user may read a pack. If the group of ``root`` may write there, servers run as different users of
    that group; the group may then read and remove packs.
    """

    def __init__(self, root: Path, *, durable: bool, make: bool = True, room: Room | None = None) -> None:
        self._root = root
        self._durable = durable
        self._room = room or Room(root)
        self._folders: set[Path] = set()
        self._group: int | None = None
        self._lists = PackLists(self._load_list)
        if not make:
            self.ping()
            return
        packs = root / PACKS
        with translated("creating the folder of the store"):
            is_new = not packs.is_dir()
            make_folder(packs, durable=durable)
            self._group = _group_that_writes(root)
            if is_new:
                self._share_folder(packs)
            if not packs.is_symlink():
                shut(packs, keep_group=self._group is not None)

    @property
    def windows_ahead(self) -> int:
        return 0

    def presigned(self, name: str, spans: Sequence[Span], lifetime: timedelta) -> Sequence[Sequence[PresignedSpan]]:
        return [()] * len(spans)

    @property
    def room(self) -> Room:
        return self._room

    def adopt(self, name: str, file: Path) -> None:
        with translated(f"storing pack {name}"):
            with opened(file, os.O_RDONLY) as fd:
                self._share(fd)
                self._sync(fd)
            try:
                self._publish(file, name)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                return
            # The file lies on another device than the store.
            self.create(name, file, [Span(0, file.stat().st_size)])
            file.unlink()

    def create(self, name: str, source: Path, spans: Sequence[Span]) -> None:
        part = self._root / part_key(name)
        with translated(f"storing pack {name}"):
            self._open_folder(part.parent)
            try:
                with opened(source, os.O_RDONLY) as read, opened(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as write:
                    self._share(write)
                    with self._room.growing(sum(span.length for span in spans)):
                        copy_spans(read, write, spans)
                    self._sync(write)
                self._publish(part, name)
            except (OSError, StoreError):
                part.unlink(missing_ok=True)
                raise

    def write(self, name: str, buffers: Iterable[Buffer]) -> int:
        part = self._root / part_key(name)
        with translated(f"storing pack {name}"):
            self._open_folder(part.parent)
            try:
                with opened(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
                    self._share(fd)
                    for buffer in buffers:
                        write_all(fd, buffer)
                    self._sync(fd)
                    size = os.fstat(fd).st_size
                self._publish(part, name)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return size

    @as_step("store.put")
    def put(self, area: str, name: str, data: Buffer) -> None:
        with translated(f"storing an object of {area}"), self._room.growing(memoryview(data).nbytes):
            self._put(self._root / area_key(area), checked_object(name), data)

    def objects(self, area: str) -> Mapping[str, int]:
        with translated(f"listing the objects of {area}"):
            return {
                path.name: size
                for path, size in self._in_area(area)
                if listed_in(area, path.name) is None and path.suffix != ".part"
            }

    def read_object(self, area: str, name: str, span: Span) -> memoryview:
        path = self._root / area_key(area) / checked_object(name)
        with translated(f"reading pack {area}", pack=area), opened(path, os.O_RDONLY) as fd:
            return read_window(fd, span)

    def join(self, name: str, stretches: Sequence[Stretch]) -> int:
        joined = PackList(stretches)
        path = self._root / list_key(name)
        with translated(f"storing pack {name}"):
            self._put(path.parent, path.name, joined.to_bytes())
        self._lists.forget(name)
        return joined.size

    @as_step("store.read")
    def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
        if is_joined(name):
            return self._lists.read(name, span, self._joined)
        with translated(f"reading pack {name}", pack=name), opened(self._path(name), os.O_RDONLY) as fd:
            return read_window(fd, span)

    def _joined(self, area: str, parts: Sequence[ObjectSpan]) -> memoryview:
        views = [self.read_object(area, part, place) for part, place in parts]
        return views[0] if len(views) == 1 else memoryview(b"".join(views))

    def size(self, name: str) -> int:
        if is_joined(name):
            return self._lists.anew(name).there(self.objects(area_of(name)))
        with translated(f"checking pack {name}", pack=name):
            return self._path(name).stat().st_size

    def delete(self, name: str) -> int:
        area = area_of(name)
        freed, found = 0, False
        with translated(f"deleting pack {name}"):
            whole = () if is_joined(name) else (self._root / part_key(name), self._path(name))
            lists_first = sorted(self._in_area(area), key=lambda each: each[0].suffix != ".list")
            for path in (*whole, *(path for path, _ in lists_first)):
                with suppress(FileNotFoundError):
                    size = 0 if path.suffix == ".list" else path.stat().st_size
                    path.unlink()
                    freed, found = freed + size, True
            found |= remove_folder(self._root / area_key(area))
            if found and self._durable:  # the pack's row is deleted next: a file back after a crash would be lost
                sync_folder((self._root / area_key(area)).parent)
        self._lists.forget(name)
        return freed

    def walk(self) -> Iterator[StoredPack]:
        with translated("listing the store"):
            for folder in (self._root / PACKS).iterdir():
                for path in folder.iterdir() if folder.is_dir() else ():
                    with suppress(FileNotFoundError):
                        if (found := name_in(path.name)) is not None:
                            yield StoredPack(found[0], path.stat().st_size, found[1])
                        elif is_area(path.name) and path.is_dir():
                            yield self._area(path.name)

    def _area(self, area: str) -> StoredPack:
        files = [(path.name, size) for path, size in self._in_area(area)]
        is_whole = any(listed_in(area, file) is not None for file, _ in files)
        return StoredPack(area, sum(size for file, size in files if listed_in(area, file) is None), is_whole)

    def _in_area(self, area: str) -> Iterator[tuple[Path, int]]:
        """Yield the files of an area that are the server's, and their sizes."""
        with suppress(FileNotFoundError):
            for path in (self._root / area_key(area)).iterdir():
                with suppress(FileNotFoundError):
                    if is_in_area(area, path.name):
                        yield path, path.stat().st_size

    def _load_list(self, name: str) -> bytes:
        with translated(f"reading pack {name}", pack=name):
            return (self._root / list_key(name)).read_bytes()

    def close(self) -> None:
        pass

    def ping(self) -> None:
        with translated("checking the store"):
            if not os.access(self._root / PACKS, os.R_OK | os.W_OK | os.X_OK):
                raise StoreError("the folder of the store is not readable and writable")

    def _path(self, name: str) -> Path:
        return self._root / pack_key(name)

    def _put(self, folder: Path, name: str, data: Buffer) -> None:
        """Write a file of an area durably, under a name of its own first. Other servers may write the same one."""
        part = folder / f"{new_name()}.part"
        try:
            fd = self._created(part)
            try:
                self._share(fd)
                write_all(fd, data)
                self._sync(fd)
            finally:
                os.close(fd)
            part.rename(folder / name)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if self._durable:
            sync_folder(folder)

    def _created(self, part: Path) -> int:
        """Open a new file; make its area if there is none."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(part, flags, FILE)
        except FileNotFoundError:
            self._open_folder(part.parent.parent)
            with suppress(FileExistsError):
                part.parent.mkdir(FOLDER)
                self._share_folder(part.parent)
            if self._durable:
                sync_folder(part.parent.parent)
            return os.open(part, flags, FILE)

    def _publish(self, file: Path, name: str) -> None:
        """Durably rename a file with durable bytes to its final name. On any failure the name is free."""
        path = self._path(name)
        self._open_folder(path.parent)
        file.rename(path)
        if self._durable:
            try:
                sync_folder(path.parent)
            except OSError:
                path.unlink(missing_ok=True)
                raise

    def _open_folder(self, folder: Path) -> None:
        """Make a folder that survives a crash. Another process may have made it without syncing its parent yet."""
        if folder in self._folders:
            return
        with suppress(FileExistsError):
            folder.mkdir(FOLDER)
            self._share_folder(folder)
        if self._durable:
            sync_folder(folder.parent)
        self._folders.add(folder)

    def _share_folder(self, folder: Path) -> None:
        if self._group is not None:
            with suppress(PermissionError):  # this user is not in the group
                os.chown(folder, -1, self._group)
                folder.chmod(FOLDER | stat.S_ISGID | stat.S_IRWXG)

    def _share(self, fd: int) -> None:
        if self._group is not None:
            with suppress(PermissionError):
                os.fchown(fd, -1, self._group)
                os.fchmod(fd, FILE | stat.S_IRGRP)

    def _sync(self, fd: int) -> None:
        if self._durable:
            os.fsync(fd)


def _group_that_writes(folder: Path) -> int | None:
    status = folder.stat()
    return status.st_gid if status.st_mode & stat.S_IWGRP else None
