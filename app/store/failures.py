"""Translation of an OSError into our own error classes.

An OSError's text holds paths of the server; these errors do not. The OSError stays attached as their cause, for logs.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import PackMissing, StorageFull, StoreError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def translated(doing: str, *, pack: str | None = None) -> Iterator[None]:
    """Turn an OSError raised while ``doing`` into a StoreError: StorageFull if no room is left, PackMissing if the
    file of ``pack`` does not exist.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no room left on the device while {doing}") from error
        if pack is not None and error.errno == errno.ENOENT:
            raise PackMissing(f"pack {pack} does not exist") from error
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise StoreError(f"{doing} failed: {reason}") from error
