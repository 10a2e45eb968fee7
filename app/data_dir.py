"""The data dir: it is private to one user, and a folder with other contents is never used as one."""

import fcntl
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StateroomError
from .private import FILE, shut
from .store.files import make_folder

LOCK = "lock"
CATALOG = "catalog.sqlite3"

_OWN = re.compile(
    rf"{LOCK}|server-id|stateroom-reserve|spool|partial|packs|metrics|{re.escape(CATALOG)}(-[a-z]+)?|lost\+found"
)


def claim(folder: Path, *, durable: bool) -> None:
    """Make the data dir, or take an existing one and shut other users out of it.

    Raises StateroomError if the folder holds other things, because neither its mode nor its contents are ours to change
    then, and if other users cannot be shut out.
    """
    make_folder(folder, durable=durable)
    entries = {path.name: path for path in folder.iterdir()}
    if not _is_data_dir(entries):
        raise StateroomError(
            f"{folder} is neither empty nor the data dir of a server: use an empty or new folder, such as --data-dir "
            f"{shlex.quote(str(folder / 'stateroom-data'))}"
        )
    shut(folder)
    for name, path in entries.items():
        if _OWN.fullmatch(name) and name != "lost+found" and not path.is_symlink():
            shut(path)


@contextmanager
def held(folder: Path, *, durable: bool) -> Iterator[None]:
    """Lock the data dir for this process and the processes it forks. Raises StateroomError if another process has it.

    The lock ends with the last of these processes, however they end.
    """
    claim(folder, durable=durable)
    with locked(folder / LOCK, f"another server is using the data dir {folder}"):
        yield


@contextmanager
def locked(file: Path, refusal: str) -> Iterator[None]:
    """Hold the lock of a file, which is made if it is missing. Raises StateroomError with the text ``refusal``."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateroomError(refusal) from None
        yield
    finally:
        os.close(fd)


def _is_data_dir(entries: dict[str, Path]) -> bool:
    """Return whether the folder holds a server's file, or only names that a server uses."""
    made = (entries.get(name) for name in (LOCK, CATALOG))
    if any(path is not None and stat.S_ISREG(path.lstat().st_mode) for path in made):
        return True
    return all(_OWN.fullmatch(name) for name in entries)
