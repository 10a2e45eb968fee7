"""The folder of backups: the only module that knows its files.

<folder>/
├── lock                            held by the backup or restore that is running
├── packs/                          the packs of all backups, each once, named as in a store
└── backups/
    └── 20261130T091500Z/           one backup
        ├── catalog.sqlite3         its catalog
        └── backup.json             written last, when everything else is durable: without it there is no backup
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from ..data_dir import locked
from ..errors import NotFound, StateroomError
from ..private import FOLDER, shut
from ..store.failures import translated
from ..store.files import make_folder, opened, sync_folder, write_all
from ..store.keys import PACKS

BACKUPS, LOCK, CATALOG, MARK = "backups", "lock", "catalog.sqlite3", "backup.json"

FORMAT = 1

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[0-9]+)?", re.ASCII)
_OWN = frozenset({BACKUPS, LOCK, PACKS, "lost+found"})


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished backup. ``revision`` is that of its catalog, whose bytes have the digest ``catalog_blake3``. Of its
    ``packs``, ``new_packs`` were not there before. ``problems`` are the packs that are damaged or missing, with the
    reason.
    """

    id: str
    version: str
    revision: str
    began_at: str
    finished_at: str
    models: int
    checkpoints: int
    catalog_bytes: int
    catalog_blake3: str
    packs: int
    pack_bytes: int
    new_packs: int
    new_bytes: int
    problems: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


class BackupFolder:
    """The backups in the folder ``root``, in the order of their ids. ``durable=False`` leaves out every fsync."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.root = root
        self.durable = durable

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock an existing folder of backups. Raises StateroomError if another process works on it."""
        if not (self.root / BACKUPS).is_dir():
            raise StateroomError(f"{self.root} is not a folder of backups: it has no folder named {BACKUPS}")
        with locked(self.root / LOCK, f"another backup or restore is using {self.root}"):
            yield

    def make(self) -> None:
        """Make the folder, or take an existing one and shut other users out of it. Raises StateroomError if it holds
        anything else.
        """
        with translated("creating the folder of backups"):
            make_folder(self.root, durable=self.durable)
            names = {path.name for path in self.root.iterdir()}
            if names - _OWN or (names - {"lost+found"} and BACKUPS not in names):
                raise StateroomError(
                    f"{self.root} is neither empty nor a folder of backups: use an empty or new folder, such as "
                    f"{self.root / 'stateroom-backup'}"
                )
            shut(self.root)
            make_folder(self.root / BACKUPS, durable=self.durable)

    def all(self) -> list[Backup]:
        """Return the finished backups, oldest first. Raises StateroomError for one of a newer format, and for one whose
        folder was renamed.
        """
        return [self._read(name) for name in self._ids() if self._is_finished(name)]

    def get(self, backup_id: str | None) -> Backup:
        """Return a finished backup, by default the newest. Raises NotFound."""
        backups = self.all()
        named = [each for each in backups if backup_id in {None, each.id}]
        if not named:
            there = ", ".join(each.id for each in backups) or "none"
            what = "finished backup" if backup_id is None else f"finished backup {backup_id!r}"
            raise NotFound(f"{self.root} has no {what}; there are: {there}")
        return named[-1]

    def catalog(self, backup_id: str) -> Path:
        """The path of a backup's catalog."""
        return self.root / BACKUPS / backup_id / CATALOG

    def begin(self, now: datetime) -> str:
        """Make the folder of a new backup, and return its id, which is higher than that of any other, whatever the
        clock says.
        """
        name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        newest = max(map(_order, self._ids()), default=None)
        if newest is not None and newest >= _order(name):
            name = f"{newest[0]}-{newest[1] + 1:04}"
        with translated("creating the folder of a backup"):
            (self.root / BACKUPS / name).mkdir(FOLDER)
        return name

    def finish(self, backup: Backup) -> None:
        """Make a backup count, durably. Everything else of it is durable already."""
        folder = self.root / BACKUPS / backup.id
        part = folder / f"{MARK}.part"
        with translated("writing the mark of a backup"):
            self._sync(folder)
            with opened(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
                write_all(fd, json.dumps(backup.as_json(), indent=2).encode() + b"\n")
                if self.durable:
                    os.fsync(fd)
            part.rename(folder / MARK)
            self._sync(folder)
            self._sync(folder.parent)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove backups, but no packs. From the first step on, an interrupted removal leaves an unfinished one."""
        for backup_id in ids:
            folder = self.root / BACKUPS / backup_id
            with translated("removing a backup"):
                (folder / MARK).unlink(missing_ok=True)
                self._sync(folder)
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()

    def unfinished(self) -> list[str]:
        """Return the ids of what interrupted backups have left."""
        return [name for name in self._ids() if not self._is_finished(name)]

    def strange(self) -> list[str]:
        """Return the names beside the backups that are not ids. Each may be a backup that was renamed."""
        return sorted(path.name for path in (self.root / BACKUPS).iterdir() if not _ID.fullmatch(path.name))

    def _ids(self) -> list[str]:
        found = (path.name for path in (self.root / BACKUPS).iterdir() if _ID.fullmatch(path.name))
        return sorted(found, key=_order)

    def _is_finished(self, backup_id: str) -> bool:
        return (self.root / BACKUPS / backup_id / MARK).is_file()

    def _sync(self, folder: Path) -> None:
        if self.durable:
            sync_folder(folder)

    def _read(self, backup_id: str) -> Backup:
        file = self.root / BACKUPS / backup_id / MARK
        try:
            values = json.loads(file.read_bytes())
            if values.pop("format") != FORMAT:
                raise StateroomError(f"{file} was written by a newer version of Stateroom")
            if values["id"] != backup_id:
                raise StateroomError(f"{file} is of backup {values['id']!r}: give its folder that name again")
            return Backup(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StateroomError(f"{file} cannot be read: {type(error).__name__}") from error


def _order(backup_id: str) -> tuple[str, int]:
    """The place of a backup among all: its second, and its number within that second."""
    second, _, number = backup_id.partition("-")
    return second, int(number or 1)


def file_digest(file: Path) -> tuple[int, str]:
    """Return the size of a file and its BLAKE3, in hex."""
    hasher = blake3(max_threads=blake3.AUTO)
    hasher.update_mmap(file)
    return file.stat().st_size, hasher.hexdigest()
