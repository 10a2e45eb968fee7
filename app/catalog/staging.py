"""Blobs that are stored before the checkpoint that will refer to them.

Several clients each bring some of a checkpoint's blobs, and one of them commits it. A staged blob is like any other
that no checkpoint refers to: what keeps it is the lease of its pack, which runs on, and then the grace of a sweep.
"""

from collections.abc import Mapping

from ..values.digest import Digest
from ..values.slices import in_order
from . import blobs, uploads
from .catalog import Catalog
from .commit import BATCH, FIRST, NewPack, refuse_if_missing, store
from .pace import Pace


def stage(catalog: Catalog, namespace: str, pack: NewPack) -> None:
    """Store the blobs of an upload in parts, and end the upload. The lease of ``pack`` runs on: it lasts as long
    as the upload would have been kept.

    Raises QuotaExceeded, StoreError (``pack-lease-expired``), and Gone if the upload is gone.
    """
    pace = Pace(FIRST, BATCH)
    for stored in pace.slices(in_order(pack.blobs, key=lambda blob: blob.digest)):
        with catalog.turn(namespace, pace) as w:
            store(w, namespace, pack, stored)


def keep(catalog: Catalog, namespace: str, lengths: Mapping[Digest, int]) -> None:
    """Let the grace of blobs begin anew. Raises MissingBlobs if some are not stored any more."""
    pace, missing = Pace(FIRST, BATCH), list[Digest]()
    for batch in pace.slices(in_order(lengths)):
        with catalog.turn(namespace, pace) as w:
            missing += blobs.keep(w, namespace, {digest: lengths[digest] for digest in batch})
    refuse_if_missing(missing)


def forget_upload(catalog: Catalog, namespace: str, upload_id: str) -> None:
    """End an upload that has brought nothing. Raises Gone."""
    with catalog.write(namespace) as w:
        if not uploads.forget(w, upload_id):
            raise uploads.gone()
