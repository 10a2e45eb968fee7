"""Find and remove what has been left where uploads arrive: in the spool by processes that ended, among the partial
ones by clients that never came back.

Files are those of one data dir, and of no other server. Rows are all servers': a row that has expired goes, whoever
holds its file, and its holder finds a file without a row the next time it looks. So do the rows of a server that is no
more.
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
    """The folders that uploads arrive in, and whose they are: ``holder`` is None where no server has run yet."""

    spool: Path
    partial: Path
    holder: str | None


@dataclass(frozen=True, slots=True)
class Left:
    """The sizes of what was left, in bytes of the disk."""

    spooled: Sequence[int]
    partial: Sequence[int]

    @property
    def nbytes(self) -> int:
        return sum(self.spooled) + sum(self.partial)


def find_orphans(catalog: Catalog, incoming: Incoming, moment: Moment, *, remove: bool) -> Left:
    """What may go; it goes, if ``remove``: rows first, and then the files that have none."""
    there = partial.names_in(incoming.partial)  # before the rows are looked at: those come first
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
