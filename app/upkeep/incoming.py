"""What has been left where uploads arrive: in the spool by processes that ended, among the partial ones by clients that
never came back.
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
    """The folders that uploads arrive in."""

    spool: Path
    partial: Path


@dataclass(frozen=True, slots=True)
class Left:
    """The sizes of what was left, in bytes of the disk."""

    spooled: Sequence[int]
    partial: Sequence[int]

    @property
    def nbytes(self) -> int:
        return sum(self.spooled) + sum(self.partial)


def look_for_left(catalog: Catalog, incoming: Incoming, moment: Moment, *, remove: bool) -> Left:
    """What may go; it goes, if ``remove``. A partial upload's bytes go before its row."""
    there = partial.names_in(incoming.partial)  # before the rows are looked at: those come first
    with catalog.read() as s:
        expired = uploads.expired(s, moment.before)
        orphans = there - uploads.among(s, there)
    sizes = []
    for name in (*orphans, *expired):
        sizes.append(partial.size_of(incoming.partial, name))
        if remove:
            partial.remove(incoming.partial, name)
    if remove:
        for name in expired:
            with catalog.write() as w:
                uploads.forget(w, name)
    return Left([size for _, size in left_behind(incoming.spool, remove=remove)], sizes)
