"""A spool: checkpoints that wait on a disk of this machine until their server is back.

Each is a folder ``TIME-ID`` with ``checkpoint.pt``, the file that torch.save would write, and ``fields.json``, its
label; neither holds a token. The folder is written as ``TIME-ID.part``, and renamed when all of it is on the disk. A
stored checkpoint is renamed to ``TIME-ID.sent`` and removed. A checkpoint that the server refused for good is kept as
``TIME-ID.refused``, with the reason in ``reason.json``. A crash at any moment leaves one of these.

Processes may share a spool: one of them sends at a time. Names sort by time, and are sent in that order.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .._errors import InvalidRequest
from .._private import check_private, private_folder, private_opener

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # typeshed has no None for it

PART, SENT, REFUSED = ".part", ".sent", ".refused"
FILE, FIELDS, REASON = "checkpoint.pt", "fields.json", "reason.json"

LEFT_OVER = 3600
"""Seconds without a write after which a ``.part`` folder is taken to be a killed process's."""


@dataclass(frozen=True)
class Label:
    """The label of a waiting file: its server and model, its idempotency key, and the ``fields`` of its upload by their
    names in the query (``epoch``, ``metric.acc``, ``tag.author``).
    """

    server: str
    model: str
    idempotency_key: str
    created_at: str
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Waiting:
    """A checkpoint in a spool."""

    folder: Path
    label: Label

    @property
    def file(self) -> Path:
        return self.folder / FILE


class Spool:
    """The waiting checkpoints in ``folder``, which is created with the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pieces: Iterable[memoryview], label: Label) -> Waiting:
        """Write a checkpoint, and return when all of it is on the disk. After an OSError nothing of it is left."""
        private_folder(self.folder)
        newest = max((int(each.name.partition("-")[0]) for each in self._folders()), default=0)
        path = self.folder / f"{max(time.time_ns(), newest + 1):020d}-{uuid.uuid4().hex[:8]}"
        part = path.with_name(path.name + PART)
        part.mkdir(mode=0o700)
        try:
            _write(part / FILE, pieces)
            _write(part / FIELDS, [_json(asdict(label))])
            _sync(part)
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _sync(self.folder)
        return Waiting(path, label)

    def waiting(self, server: str | None = None) -> list[Waiting]:
        """Return the checkpoints that wait for one server or for any, oldest first. Unreadable ones are left alone."""
        found = []
        for folder in self._folders():
            with suppress(OSError, ValueError, TypeError):  # just sent by another process, or not ours
                label = Label(**json.loads((folder / FIELDS).read_bytes()))
                if server in {None, label.server}:
                    found.append(Waiting(folder, label))
        return found

    def remove(self, sent: Waiting) -> None:
        """Remove a checkpoint that the server has stored."""
        doomed = sent.folder.with_name(sent.folder.name + SENT)
        sent.folder.rename(doomed)
        _sync(self.folder)
        shutil.rmtree(doomed, ignore_errors=True)

    def set_aside(self, refused: Waiting, reason: Mapping[str, Any]) -> Path:
        """Keep a refused checkpoint, with the reason, under a name that is never sent."""
        with suppress(FileExistsError):  # left by a process that was killed here
            _write(refused.folder / REASON, [_json(reason)])
        aside = refused.folder.with_name(refused.folder.name + REFUSED)
        refused.folder.rename(aside)
        _sync(self.folder)
        return aside

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Hold the spool's lock: one process and thread sends, and others wait. Removes leftovers of crashes."""
        private_folder(self.folder)
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._clear()
            yield
        finally:
            os.close(lock)

    def _folders(self) -> list[Path]:
        with suppress(OSError):
            found = (path for path in self.folder.iterdir() if not path.suffix and path.name[:20].isdigit())
            return sorted(found, key=lambda path: path.name)
        return []

    def _clear(self) -> None:
        for path in self.folder.glob("*" + SENT):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("*" + PART):
            with suppress(OSError):
                written = max(each.stat().st_mtime for each in (path, *path.iterdir()))
                if time.time() - written > LEFT_OVER:
                    shutil.rmtree(path, ignore_errors=True)


def spool_of(folder: str | os.PathLike[str] | None) -> Spool | None:
    """Return the spool in the given folder, or in STATEROOM_SPOOL_DIR; None without a folder. Raises InvalidRequest."""
    folder = folder if folder is not None else os.environ.get("STATEROOM_SPOOL_DIR")
    if not folder:
        return None
    if fcntl is None:
        raise InvalidRequest("spool_dir needs file locks (fcntl), which this system does not have")
    path = Path(folder).expanduser()
    check_private(path)
    return Spool(path)


def now_text() -> str:
    return datetime.now(timezone.utc).isoformat()


def _json(document: Mapping[str, Any]) -> memoryview:
    return memoryview((json.dumps(document, indent=2) + "\n").encode())


def _write(path: Path, pieces: Iterable[memoryview]) -> None:
    with open(path, "xb", opener=private_opener) as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
