"""The random name of a data dir. Servers may share a catalog and a store, but each has its own data dir.

<data-dir>/server-id   the data dir's name, made at the first start and kept from then on
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from .failures import translated
from .files import opened, sync_folder, write_all
from .keys import new_name

_FILE = "server-id"
_NAME = re.compile(rb"[a-z0-9]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Holder:
    """A server process that holds files of uploads. ``id`` is its data dir's name.

    ``run`` is new at each start of a server. It tells this process's records about files from the records of an
    earlier process, or of one on a copy of the data dir.
    """

    id: str
    run: str = field(default_factory=new_name)


def holder_id(data_dir: Path, *, durable: bool) -> str:
    """Return the name of a data dir, and give it one if it has none."""
    with translated("reading the name of the data dir"):
        if (known := _read(data_dir)) is None:
            _make(data_dir, durable=durable)
            known = _read(data_dir)  # if two processes made one at once, the later name counts
    return known or ""


def known_holder_id(data_dir: Path) -> str | None:
    """The name of a data dir; None where no server has run on it."""
    with translated("reading the name of the data dir"):
        return _read(data_dir)


def _read(data_dir: Path) -> str | None:
    try:
        content = (data_dir / _FILE).read_bytes()
    except FileNotFoundError:
        return None
    return content.decode() if _NAME.fullmatch(content) else None


def _make(data_dir: Path, *, durable: bool) -> None:
    """Write the file under a temporary name first, so that a crash leaves the whole file or none."""
    new = data_dir / f"{_FILE}.{new_name()}"
    try:
        with opened(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            write_all(fd, new_name().encode())
            if durable:
                os.fsync(fd)
        new.rename(data_dir / _FILE)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(data_dir)
