"""Blobs that no checkpoint refers to, and the packs of which nothing else is left."""

from sqlalchemy import delete, select

from . import packs
from .catalog import Catalog
from .commit import BATCH
from .dialect import each_integer
from .tables import blobs, checkpoint_blobs
from .tables import packs as packs_table


def release(catalog: Catalog, pack: str | None = None) -> None:
    """Drop the blobs of ``pack`` that no checkpoint refers to; with the last one the pack becomes an abandoned one,
    whose bytes may be deleted. Without ``pack``, of all packs: for a server that knows that it is the only one and has
    not begun to serve.

    A commit that relied on a blob that goes here finds it missing, and stores it itself. In short transactions; a
    crash between them leaves less for the next time.
    """
    is_unused = ~select(checkpoint_blobs.c.blob_id).where(checkpoint_blobs.c.blob_id == blobs.c.id).exists()
    found = select(blobs.c.id).where(is_unused).order_by(blobs.c.id).limit(BATCH)
    if pack is not None:
        is_of_pack = select(packs_table.c.id).where(packs_table.c.name == pack).scalar_subquery()
        found = found.where(blobs.c.pack_id == is_of_pack)
    last = 0
    while True:
        with catalog.read() as s:  # looking for them may take long where they are few
            ids = s.select(found.where(blobs.c.id > last)).scalars().all()
        if not ids:
            break
        with catalog.turn() as w:
            w.execute(delete(blobs).where(blobs.c.id.in_(each_integer(ids)), is_unused))
        last = ids[-1]
    with catalog.write() as w:
        packs.unseal_empty(w, pack)
