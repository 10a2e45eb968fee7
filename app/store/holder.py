"""Whose files those in a data dir are. Servers may share a catalog and a store; each has a data dir of its own.

<data-dir>/server-id   the data dir's name: random, made at the first start, kept from then on
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
    """``id`` is the data dir's name. ``run`` is new at each start of a server: it tells what this one has seen itself
    from what an earlier one, or one on a copy of the data dir, says of its files.
    """

    id: str
    run: str = field(default_factory=new_name)


def holder_id(data_dir: Path, *, durable: bool) -> str:
    """The name of a data dir, which gets one if it has none."""
    with translated("reading the data dir's name"):
        if (known := _read(data_dir)) is None:
            _make(data_dir, durable=durable)
            known = _read(data_dir)  # that of whoever made it last, if two did at once
    return known or ""


def known_holder_id(data_dir: Path) -> str | None:
    """The name of a data dir; None where no server has run on it."""
    with translated("reading the data dir's name"):
        return _read(data_dir)


def _read(data_dir: Path) -> str | None:
    try:
        content = (data_dir / _FILE).read_bytes()
    except FileNotFoundError:
        return None
    return content.decode() if _NAME.fullmatch(content) else None


def _make(data_dir: Path, *, durable: bool) -> None:
    """Under another name first, so that a crash leaves all of it or nothing."""
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
