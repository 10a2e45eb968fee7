"""Folders and files that only their owner can read, whatever the umask: they hold other people's weights."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from ._errors import InvalidRequest


def private_folder(path: Path) -> None:
    """Create a folder for its owner alone; if it exists, take the permissions of others away.

    Raises InvalidRequest as ``check_private`` does, and OSError.
    """
    for parent in reversed([each for each in path.parents if not each.exists()]):
        parent.mkdir(mode=0o700, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        check_private(path)
    if hasattr(os, "getuid"):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if stat.S_IMODE(os.fstat(folder).st_mode) != 0o700:
                os.fchmod(folder, 0o700)
        finally:
            os.close(folder)


def check_private(path: Path) -> None:
    """Raise InvalidRequest for a folder that somebody else may have put there: a symbolic link, or a folder of another
    user, who could change its contents. A missing folder is fine.
    """
    try:
        found = path.lstat()
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise InvalidRequest(
            f"{str(path)!r} is a symbolic link, which another user may have made: give the path of its target"
        )
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        command = f"sudo chown -R {os.getuid()} {shlex.quote(str(path))}"
        raise InvalidRequest(f"{str(path)!r} belongs to another user: use a folder of your own, or run {command}")


def private_opener(path: str, flags: int) -> int:
    """Open a file that only its owner can read; for ``open(opener=...)``."""
    return os.open(path, flags, 0o600)
