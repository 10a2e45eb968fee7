"""Find and remove left uploads: spool files of processes that ended, partial uploads of clients that never came back.

Only files of this server's data dir are removed. Expired rows of all servers are removed, so also the rows of a server
that no longer exists. The holder of such a row finds its file without a row the next time it looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..catalog import Catalog, uploads
from ..catalog.unused import Moment
from ..store import partial
from ..store.spool import left_behind


@dataclass(frozen=True, slots=True)
class Incoming:
    """The folders that uploads arrive in, and their holder. ``holder`` is None if no server has run yet."""

    spool: Path
    partial: Path
    holder: str | None


@dataclass(frozen=True, slots=True)
class Left:
    """The sizes of left uploads, in bytes on disk."""

    spooled: Sequence[int]
    partial: Sequence[int]

    @property
    def nbytes(self) -> int:
        return sum(self.spooled) + sum(self.partial)


def find_orphans(catalog: Catalog, incoming: Incoming, moment: Moment, *, remove: bool) -> Left:
    """Find left uploads. With ``remove``, remove them: first rows, then files without a row."""
    there = partial.names_in(incoming.partial)  # read before the rows, because rows are written before files
    with catalog.read() as s:
        expired = uploads.expired(s, moment.before)
    if remove:
        for name in expired:
            with catalog.write() as w:
                uploads.forget_expired(w, name, moment.before)
    with catalog.read() as s:
        kept = uploads.held(s, incoming.holder, there)
    if not remove:
        kept -= set(expired)
    sizes = []
    for name in dict.fromkeys((*(there - kept), *expired)):
        if name in kept or partial.is_held(incoming.partial, name):
            continue
        sizes.append(partial.size_of(incoming.partial, name))
        if remove:
            partial.remove(incoming.partial, name)
    return Left([size for _, size in left_behind(incoming.spool, remove=remove)], sizes)
