"""The commit of a checkpoint: before it nobody sees the checkpoint, after it a crash cannot lose the checkpoint.

A checkpoint of few blobs is one transaction. One of many blobs takes several short transactions, so that no other
writer waits for hundreds of thousands of rows:

1. seal the pack and insert its blobs, a batch at a time;
2. insert a checkpoint row without a version, then its references to blobs, a batch at a time;
3. assign the version, which makes the checkpoint visible.

A crash between them leaves blobs without references and an invisible row: the sweep removes the row
(``unfinished``), and the blobs.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import bindparam, case, delete, insert, select, update

from ..errors import MissingBlobs, StateroomError, StoreError
from ..values.checkpoint import Blob, Checkpoint, ModelName, NewCheckpoint
from ..values.digest import Digest
from ..values.event import EventKind
from ..values.slices import in_order
from . import blobs, hub, idempotency, lineage, namespaces, packs, runs, uploads
from .catalog import Catalog
from .events import record
from .merges import merge_to_json
from .models import DEFAULT_BEST, drop_never_used
from .pace import Pace
from .rows import (
    check_fields,
    check_integer,
    check_run,
    check_slot,
    components_to_json,
    metric_rows,
    split_number,
    tag_rows,
    to_microseconds,
)
from .session import WriteSession
from .shown import published, shown_names
from .tables import checkpoints, metrics, models, tags

FIRST, BATCH = 250, 2000
"""Fewest and most rows of one kind in one of several transactions: about 20 ms in which other writers wait."""

_THIS_MODEL = models.c.namespace == bindparam("the_namespace"), models.c.name == bindparam("the_name")
_DRAW = (
    update(models)
    .where(*_THIS_MODEL)
    .values(
        next_version=models.c.next_version + 1,
        checkpoints=models.c.checkpoints + 1,
        nbytes=models.c.nbytes + bindparam("more_bytes"),
        new_bytes=models.c.new_bytes + bindparam("more_new_bytes"),
        created_at=case((models.c.deleted_at.is_(None), models.c.created_at), else_=bindparam("now")),
        deleted_at=None,
    )
    .returning(models.c.id, models.c.next_version - 1)
)
_INSERT = insert(checkpoints).returning(checkpoints.c.id)


@dataclass(frozen=True, slots=True)
class NewPack:
    """A pack of ``size`` durable bytes, with ``blobs`` that were new to the namespace. ``upload`` is the upload in
    parts that brought it, if one did: its area has the pack's objects.
    """

    name: str
    size: int
    blobs: Sequence[Blob]
    upload: str | None = None


def commit(
    catalog: Catalog,
    new: NewCheckpoint,
    pack: NewPack | None,
    forget_pack: str | None = None,
    forget_upload: str | None = None,
) -> Checkpoint:
    """Make ``new`` the next version of its model. The first checkpoint creates the model.

    ``pack`` was begun and is written. It is None if nothing was new; ``forget_pack`` then names the pack that was begun
    but is not needed, or ``forget_upload`` the upload in parts whose objects are not needed.

    If other uploads stored all of the pack's blobs first, the checkpoint refers to those blobs, its ``new_bytes`` are 0
    and the pack is abandoned: delete its bytes, then forget it.

    Raises MissingBlobs with the digests that are neither in ``pack`` nor stored any more. The checkpoint then does
    not exist, and the commit may be retried, with this pack or with another that holds those blobs. Raises
    InvalidRequest (``bad-text``, ``bad-number``, ``bad-metric``, ``bad-tag``), StoreError (``pack-lease-expired``),
    QuotaExceeded, Gone if the upload in parts is gone, PreconditionFailed if ``new`` is a commit of the Hub and another
    checkpoint came first, and KeyInUse if another checkpoint of the model has this
    idempotency key.
    """
    _check(new)
    if len(new.blobs) + (len(pack.blobs) if pack else 0) > BATCH:
        return _commit_in_batches(catalog, new, pack, forget_pack, forget_upload)
    namespace = new.model.namespace
    with catalog.write(namespace) as w:
        stored_bytes = 0
        if pack is not None:
            stored_bytes = blobs.insert_uncounted(w, namespace, _sealed(w, pack, finish=True), pack.blobs)
            if stored_bytes == 0:  # it may have no blob
                new = _finished(w, new, pack)
        new, version = _draw_version(w, new)
        checkpoint_id = _insert(w, new, version)
        refuse_if_missing(blobs.refer(w, checkpoint_id, namespace, new.blobs))
        return _publish(w, checkpoint_id, new, version, forget_pack, forget_upload, stored_bytes)


def _commit_in_batches(
    catalog: Catalog, new: NewCheckpoint, pack: NewPack | None, forget_pack: str | None, forget_upload: str | None
) -> Checkpoint:
    namespace, pace = new.model.namespace, Pace(FIRST, BATCH)
    if pack is not None:
        # In index order, so that neighbouring rows are written, and later read, together.
        for stored in pace.slices(in_order(pack.blobs, key=lambda blob: blob.digest)):
            with catalog.turn(namespace, pace) as w:
                store(w, namespace, pack, stored)
    with catalog.write(namespace) as w:
        checkpoint_id = _insert(w, new)
    try:
        missing: list[Digest] = []
        for batch in pace.slices(in_order(new.blobs)):
            with catalog.turn(namespace, pace) as w:
                lengths = {digest: new.blobs[digest] for digest in batch}
                missing += blobs.refer(w, checkpoint_id, namespace, lengths)
        refuse_if_missing(missing)
        with catalog.write(namespace) as w:
            new, version = _draw_version(w, _finished(w, new, pack))
            _make_visible(w, checkpoint_id, new, version)
            return _publish(w, checkpoint_id, new, version, forget_pack, forget_upload)
    except BaseException:
        with suppress(StateroomError), catalog.write(namespace) as w:  # the sweep removes what this cannot
            w.execute(delete(checkpoints).where(checkpoints.c.id == checkpoint_id, checkpoints.c.version.is_(None)))
            drop_never_used(w, namespace)
        raise


def store(w: WriteSession, namespace: str, pack: NewPack, stored: Sequence[Blob]) -> None:
    """Seal the pack, and insert some of its blobs. Raises Gone if another commit had its upload."""
    blobs.insert_new(w, namespace, _sealed(w, pack), stored)


def _sealed(w: WriteSession, pack: NewPack, *, finish: bool = False) -> int:
    """Seal the pack, as ``packs.seal`` does, and return its id. Raises Gone if another commit had its upload."""
    if pack.upload is not None:
        if uploads.finish(w, pack.upload):
            packs.rename(w, pack.upload, pack.name)
        elif not packs.is_sealed(w, pack.name):  # another commit was first, or the upload was given up
            raise uploads.gone()
    return packs.seal(w, pack.name, pack.size, finish=finish)


def refuse_if_missing(missing: Sequence[Digest]) -> None:
    if missing:
        raise MissingBlobs(
            f"{len(missing)} blobs of the checkpoint are no longer in the store; send it again", digests=missing
        )


def _check(new: NewCheckpoint) -> None:
    check_fields(new.metrics, new.tags)
    check_integer(new.epoch, "epoch")
    check_integer(new.step, "step")
    check_run(new.run)
    check_slot(new.slot)


@dataclass(frozen=True, slots=True)
class _Version:
    """A version that a model has drawn for a checkpoint, and the time at which it begins to exist."""

    model_id: int
    number: int
    at: datetime

    def columns(self, new: NewCheckpoint) -> dict[str, object]:
        """The columns of a checkpoint's row that depend on its version."""
        return {
            "version": self.number,
            "created_at": to_microseconds(self.at),
            "expires_at": None if new.ttl is None else to_microseconds(self.at + new.ttl),
            "new_bytes": new.new_bytes,
        }


def _finished(w: WriteSession, new: NewCheckpoint, pack: NewPack | None) -> NewCheckpoint:
    """End the lease of the pack, and return ``new`` with the bytes that it really added."""
    return replace(new, new_bytes=0) if pack is not None and packs.finish(w, pack.name) else new


def _draw_version(w: WriteSession, new: NewCheckpoint) -> tuple[NewCheckpoint, _Version]:
    """Draw the next version of the checkpoint's model, which then exists and counts it."""
    now, model = to_microseconds(datetime.now(UTC)), new.model
    drawn = {
        "the_namespace": model.namespace,
        "the_name": model.name,
        "more_bytes": new.nbytes,
        "more_new_bytes": new.new_bytes,
        "now": now,
    }
    row = w.execute(_DRAW, **drawn).first()
    if row is None:
        _insert_model(w, model)
        row = w.execute(_DRAW, **drawn).one()
    hub.check_head(w, row[0], row[1], new)
    return new, _Version(row[0], row[1], datetime.now(UTC))


def _insert_model(w: WriteSession, model: ModelName) -> None:
    row = {"namespace": model.namespace, "name": model.name, "best": DEFAULT_BEST, "next_version": 1, "checkpoints": 0}
    w.insert_or_keep(models, [{**row, "created_at": to_microseconds(datetime.now(UTC))}])


def _insert(w: WriteSession, new: NewCheckpoint, version: _Version | None = None) -> int:
    """Insert the row, which stays invisible without a version, and return its id."""
    now = to_microseconds(datetime.now(UTC))
    loss, loss_nonfinite = split_number(new.loss)
    row = {
        "run": new.run,
        "epoch": new.epoch,
        "step": new.step,
        "loss": loss,
        "loss_nonfinite": loss_nonfinite,
        "format": new.format,
        "devices": list(shown_names(new.devices)),
        "components": components_to_json(new.components),
        "unsafe_globals": list(shown_names(new.unsafe_globals)),
        "manifest": new.manifest,
        "frame": new.frame,
        "nbytes": new.nbytes,
        "new_bytes": new.new_bytes,
        "digest": new.digest or "",
        "sha256": new.sha256 or "",
        "original": new.original,
        "created_at": now,
        "slot": new.slot,
        "optimizer_bytes": new.optimizer_bytes,
        "scan_at": now if new.scan else None,
        "merge": None if new.merge is None else merge_to_json(new.merge),
    }
    if version is not None:
        row |= {"model_id": version.model_id, **version.columns(new)}
    else:
        _insert_model(w, new.model)
        this = {"the_namespace": new.model.namespace, "the_name": new.model.name}
        row["model_id"] = w.select(select(models.c.id).where(*_THIS_MODEL), **this).scalar_one()
    return int(w.execute(_INSERT, **row).scalar_one())


def _make_visible(w: WriteSession, checkpoint_id: int, new: NewCheckpoint, version: _Version) -> None:
    """Give the version to a row that was inserted without."""
    this = update(checkpoints).where(checkpoints.c.id == checkpoint_id, checkpoints.c.created_at > 0)
    if w.execute(this.values(**version.columns(new))).rowcount != 1:
        # another server, believing itself alone, removed the row as crash debris
        raise StoreError("another server removed the commit as interrupted; send the upload again")


def _publish(
    w: WriteSession,
    checkpoint_id: int,
    new: NewCheckpoint,
    version: _Version,
    forget_pack: str | None,
    forget_upload: str | None,
    stored_bytes: int = 0,
) -> Checkpoint:
    """Write what belongs to a checkpoint with a version, and count it with its ``stored_bytes``. The end of the
    transaction makes it visible.
    """
    if new.idempotency_key is not None:
        idempotency.remember(w, version.model_id, new.idempotency_key, checkpoint_id)
    key = {"model_id": version.model_id, "version": version.number, "run": new.run}
    namespaces.count(w, new.model.namespace, checkpoints=1, logical_bytes=new.nbytes, stored_bytes=stored_bytes)
    runs.add(w, version.model_id, new.run, version.number)
    w.postpone(metrics.insert(), metric_rows(key, new.metrics))
    w.postpone(tags.insert(), tag_rows(key, new.tags))
    lineage.remember(w, new, version.number)
    hub.remember(w, checkpoint_id, new)
    record(w, EventKind.CHECKPOINT_CREATED, new.model, version.number)
    if forget_pack is not None:
        packs.forget(w, forget_pack)
    if forget_upload is not None and not uploads.forget(w, forget_upload):
        raise uploads.gone()
    return published(new, checkpoint_id, version.number, version.at)
