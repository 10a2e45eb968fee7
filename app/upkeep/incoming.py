"""Find and remove left uploads: spool files of processes that ended, uploads in parts of clients that never came back.

Spool files are those of this server's data dir. Expired uploads in parts are those of all servers: each is forgotten,
and then its pack is an abandoned one, whose objects the sweep deletes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..catalog import Catalog, uploads
from ..catalog.unused import Moment
from ..store.spool import left_behind


@dataclass(frozen=True, slots=True)
class Left:
    """The sizes of left spool files, in bytes, and the number of expired uploads in parts."""

    spooled: Sequence[int]
    partial: int

    @property
    def nbytes(self) -> int:
        return sum(self.spooled)


def find_orphans(catalog: Catalog, spool: Path, moment: Moment, *, remove: bool) -> Left:
    """Find left uploads. With ``remove``, remove the files, and forget the expired uploads."""
    with catalog.read() as s:
        expired = uploads.expired(s, moment.before)
    count = len(expired)
    if remove:
        count = 0
        for name in expired:
            with catalog.write() as w:
                count += uploads.forget_expired(w, name, moment.before)
    return Left([size for _, size in left_behind(spool, remove=remove)], count)
