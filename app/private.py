"""Protection of files and folders from other users of the machine: the catalog holds the keys that sign links."""

import os
import shlex
import stat
from pathlib import Path

from .errors import StateroomError

UMASK = 0o077
"""The umask of every Stateroom process, whatever umask it was started with: access for its user only."""

FILE, FOLDER = 0o600, 0o700
"""Modes of new files and folders; explicit, so that they hold in a process that has not set its umask."""

GROUP, OTHERS = 0o070, 0o007


def shut(path: Path, *, keep_group: bool = False) -> None:
    """Take all access to ``path`` from users other than its owner; with ``keep_group`` its group keeps its access.

    Raises StateroomError, with the command that mends it, if that cannot be done, or if root would make files that the
    owner's server cannot use.
    """
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    loose = mode & (OTHERS if keep_group else OTHERS | GROUP)
    if status.st_uid == os.geteuid():
        if loose:
            path.chmod(mode & ~loose)
            if path.stat().st_mode & loose:
                raise StateroomError(
                    f"{path} stays open to other users of this machine (mode {mode:04o}): its file system does not "
                    "store modes; mount it with umask=077, or use another file system"
                )
    elif os.geteuid() == 0:
        raise StateroomError(
            f"{path} belongs to user {status.st_uid}, whose server could not use files made by root: run this as that "
            f"user (sudo -u '#{status.st_uid}' ...), or change its owner: chown -R root {shlex.quote(str(path))}"
        )
    elif mode & OTHERS:
        raise StateroomError(
            f"{path} is open to other users of this machine (mode {mode:04o}) and belongs to user {status.st_uid}: run "
            f"chmod o-rwx {shlex.quote(str(path))} as that user, or use a folder of your own"
        )
