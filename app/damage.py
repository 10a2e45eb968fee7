"""Handling of damage found while reading: it is verified again and marked in the catalog, so that the next upload of
these bytes brings them again and heals the blob.
"""

import logging
from collections.abc import Container, Iterable, Mapping

from .catalog import Catalog, blobs, damage
from .catalog.commit import BATCH
from .errors import DamagedBlob, PackMissing, StateroomError
from .store import PackStore
from .store.verified import check_blob, indexes_of, verified_block
from .values.checkpoint import Blob
from .values.digest import Digest

_log = logging.getLogger("stateroom.damage")


def look_again(
    catalog: Catalog, store: PackStore, namespace: str, suspects: Iterable[tuple[Blob, Container[int]]]
) -> None:
    """Mark the damaged ones of ``suspects``: blobs, and the indexes of their blocks to verify.

    Raises no StateroomError, because the caller has an error to report already.
    """
    try:
        looked_at = {blob.digest: (blob, indexes) for blob, indexes in suspects}
        with catalog.read() as s:
            unmarked = damage.unmarked(s, namespace, looked_at)
        hurt, lost = _damaged(store, [looked_at[digest] for digest in unmarked])
        for pack in lost:
            store.ping()  # a store that is not mounted holds no packs either
            if count := damage.mark_pack(catalog, pack):
                _log.error(
                    "pack %s with %d blobs is missing: upload checkpoints that contain them to replace them",
                    pack,
                    count,
                )
        for start in range(0, len(hurt), BATCH):
            with catalog.turn(namespace) as w:
                marked = [blob.digest for blob in hurt[start : start + BATCH] if damage.mark(w, namespace, blob)]
            for digest in marked:
                _log.error(
                    "blob %s of namespace %s is damaged: upload a checkpoint that contains it to replace it",
                    digest,
                    namespace,
                )
    except StateroomError:
        _log.exception("damage could not be marked; it will be marked when it is found again")


def _damaged(store: PackStore, suspects: Iterable[tuple[Blob, Container[int]]]) -> tuple[list[Blob], set[str]]:
    """Return the damaged blobs, and the packs that are missing."""
    hurt: list[Blob] = []
    lost: set[str] = set()
    for blob, indexes in suspects:
        if blob.pack in lost:
            continue
        try:
            check_blob(blob)
            for index in indexes_of(blob):
                if index in indexes:
                    verified_block(store, blob, index)
        except PackMissing:
            lost.add(blob.pack)
        except DamagedBlob:
            hurt.append(blob)
    return hurt, lost


def at_hand(catalog: Catalog, store: PackStore, namespace: str, lengths: Mapping[Digest, int]) -> dict[Digest, Blob]:
    """Return the blobs of these digests and lengths that an upload need not bring: they are stored, not marked as
    damaged, and their packs are there and long enough. Their bytes are not read.
    """
    with catalog.read() as s:
        found = blobs.stored(s, namespace, lengths)
    sizes = {pack: _size(store, pack) for pack in {blob.pack for blob in found.values()}}
    lost = {digest: blob for digest, blob in found.items() if blob.offset + blob.length > sizes[blob.pack]}
    if not lost:
        return found
    look_again(catalog, store, namespace, ((blob, indexes_of(blob)) for blob in lost.values()))
    with catalog.read() as s:
        now = blobs.stored(s, namespace, {digest: lengths[digest] for digest in lost})
    moved = {digest: blob for digest, blob in now.items() if blob != lost[digest]}  # to a pack merged from others
    return {digest: blob for digest, blob in found.items() if digest not in lost} | moved


def _size(store: PackStore, pack: str) -> int:
    try:
        return store.size(pack)
    except PackMissing:
        return -1
