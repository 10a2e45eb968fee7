"""What a crash leaves behind, removed when a server starts that has the data to itself.

An upload's pack has a row from before its first byte until its commit, so every byte without an owner is found by a
query; the spool holds nothing else than uploads on their way.
"""

from ..catalog import Catalog, checkpoints, packs
from ..store import PackStore, Spool


def remove_leftovers(catalog: Catalog, store: PackStore, spool: Spool) -> None:
    """Remove spooled uploads, packs that were never committed, and checkpoints that never became visible.

    Only before any upload arrives, and only where no other server shares the data. Bytes go before the row that tells
    of them, so a crash in here is made good by the next start.
    """
    spool.clear()
    with catalog.read() as s:
        unsealed = packs.abandoned(s)
    for name in unsealed:
        store.delete(name)
        with catalog.write() as w:
            packs.forget(w, name)
    with catalog.write() as w:
        checkpoints.drop_unfinished(w)
