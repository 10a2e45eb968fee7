"""What a crash leaves behind, removed when a server starts.

An upload's pack has a row from before its first byte until its commit, so every byte without an owner is found by a
query; the spool holds nothing else than uploads on their way.
"""

from datetime import UTC, datetime, timedelta

from ..catalog import Catalog, checkpoints, packs, unused
from ..store import PackStore, Spool

MARGIN = timedelta(hours=1)
"""How long a lease has to have run out before another server acts on it: clocks differ, and commits take a moment."""

LONGEST_COMMIT = timedelta(days=1)
"""Far more than passes between the first row of a checkpoint and its version."""


def remove_leftovers(catalog: Catalog, store: PackStore, spool: Spool, *, alone: bool) -> None:
    """Remove spooled uploads, packs that were never committed, and checkpoints that never became visible.

    Only before any upload arrives. ``alone`` says that no other server shares the catalog: then all of them go, and
    the blobs that no checkpoint refers to; else just what has been left for so long that nobody can be at work on it.
    The spool is always this server's own. Bytes go before the row that tells of them, so a crash in here is made good
    by the next start.
    """
    spool.clear()
    now = datetime.now(UTC)
    with catalog.write() as w:
        checkpoints.drop_unfinished(w, before=None if alone else now - LONGEST_COMMIT)
    if alone:
        unused.release(catalog)
    with catalog.read() as s:
        abandoned = packs.abandoned(s, now=None if alone else now - MARGIN)
    for name in abandoned:
        store.delete(name)
        with catalog.write() as w:
            packs.forget(w, name)
