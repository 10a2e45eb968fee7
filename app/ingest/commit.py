"""Committing: first write the new bytes durably to a pack, then make the checkpoint visible in the catalog.

The checkpoint only refers to blobs that the namespace holds already. If such a blob is deleted before the commit, the
catalog names the missing digests. An upload that arrived whole still has those blobs, so it stores them and retries the
commit.
"""

import logging
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from ..catalog import Catalog, namespaces, packs, staging, unused
from ..catalog.commit import NewPack, commit
from ..catalog.session import WriteSession
from ..damage import at_hand
from ..errors import MissingBlobs, StateroomError
from ..retention import Retention
from ..store import OpenFile, PackStore
from ..store.keys import is_joined, joined_name, manifest_name, new_name
from ..store.pack_list import Stretch
from ..values.checkpoint import Blob, Checkpoint, CheckpointName, NewCheckpoint, own_parent
from ..values.digest import Digest
from ..values.tracing import as_step
from .pack_plan import FoundBlob, PackPlan, plan_adoption, plan_copy, plan_pack

_log = logging.getLogger(__name__)

LEASE_SECONDS = 24 * 60 * 60
"""Longest time from the first byte of an upload to its commit, in seconds."""

_RETRIES = 4


@dataclass(frozen=True, slots=True)
class Brought:
    """An upload in parts that has arrived: the ``stretches`` of its ``area``, joined, have the blobs ``placed`` at
    their places. ``encoded`` is its manifest, and ``manifest`` that as a blob.
    """

    area: str
    stretches: Sequence[Stretch]
    placed: Sequence[tuple[int, FoundBlob]]
    encoded: bytes
    manifest: FoundBlob


@dataclass(frozen=True, slots=True)
class Staged:
    """An upload in parts that has only blobs: all of them by their ``lengths``, and those that have arrived as in
    ``Brought``.
    """

    namespace: str
    area: str
    lengths: Mapping[Digest, int]
    stretches: Sequence[Stretch]
    placed: Sequence[tuple[int, FoundBlob]]


class Committer:
    """Writes packs, and commits checkpoints that refer to them. Safe for several threads."""

    def __init__(self, catalog: Catalog, store: PackStore, retention: Retention) -> None:
        self._catalog = catalog
        self._store = store
        self._retention = retention

    def begin(self, name: str, parent: CheckpointName | None = None) -> None:
        """Announce a pack, so that all remains of a later crash can be found, and that retention keeps ``parent``."""
        with self._catalog.write_own_rows() as w:
            packs.begin(w, name, LEASE_SECONDS, parent)

    def abandon(self, name: str) -> None:
        """Remove a pack and its row, as far as they exist. Blobs of a sealed pack with a reference stay."""
        try:
            with self._catalog.read() as s:
                is_sealed = packs.is_sealed(s, name)
            if is_sealed:
                unused.release(self._catalog, name)
                with self._catalog.read() as s:
                    is_sealed = packs.is_sealed(s, name)
            if is_sealed:
                return
            with self._catalog.write_own_rows() as w:
                is_ended = packs.end(w, name)  # waits for a commit whose outcome is unknown, and then finds it sealed
            if is_ended:
                self._store.delete(name)
                if not is_joined(name):  # a part may still come; then the sweep deletes it
                    with self._catalog.write_own_rows() as w:
                        packs.forget(w, name)
        except StateroomError as error:
            # The caller has to get the earlier error; a sweep removes the rest.
            _log.warning("pack %s could not be removed; a sweep removes it: %s", name, error)

    def stage(self, name: str, file: OpenFile, namespace: str, record: Callable[[WriteSession], bool]) -> bool:
        """Make ``file`` the pack ``name``, which was begun for it, and ``record`` it as something that was sent ahead
        of a commit of the namespace. Return what ``record`` returns: False if the pack is not needed, because there is
        another one.
        """
        self._store.adopt(name, file.given_away())
        with self._catalog.write(namespace) as w:
            is_needed = record(w)
        if not is_needed:
            self.abandon(name)
        return is_needed

    @as_step("commit")
    def commit(self, name: str, file: OpenFile, new: NewCheckpoint, found: Sequence[FoundBlob]) -> Checkpoint:
        """Store the new ones of the blobs ``found`` in ``file``, and publish ``new`` with its ``new_bytes`` filled in.
        Then do what it means for the retention of its run.

        ``name`` is the pack begun for it. On an error no pack is left behind. Raises MissingBlobs if a blob that
        ``new`` refers to is neither in the file nor stored any more.
        """
        checkpoint = self._commit(name, file, new, found)
        self._retention.after_commit(checkpoint)
        return checkpoint

    @as_step("commit")
    def commit_parts(self, brought: Brought, new: NewCheckpoint) -> Checkpoint:
        """Publish ``new``, which an upload in parts ``brought``. Then do what it means for the retention of its run.

        On an error the upload stays, to be committed again. Raises MissingBlobs, and Gone if the upload is gone.
        """
        known = self._known(new)
        checkpoint = self._commit_parts(brought, new, known)
        self._end_staging({blob.pack for blob in known.values()})
        self._retention.after_commit(checkpoint)
        return checkpoint

    def _commit_parts(self, brought: Brought, new: NewCheckpoint, known: Container[Digest]) -> Checkpoint:
        area, stretches, encoded, name = brought.area, brought.stretches, brought.encoded, joined_name(brought.area)
        size = sum(stretch.length for stretch in stretches)
        blobs = {
            blob.digest: Blob(blob.digest, name, place, blob.length, blob.crc32, blob.blocks)
            for place, blob in (*brought.placed, (size, brought.manifest))
            if blob.digest not in known
        }
        if not blobs:
            checkpoint = commit(self._catalog, new, None, forget_upload=area)
            self._delete(area)
            return checkpoint
        with self._catalog.read() as s:
            namespaces.check_room(s, new.model.namespace, sum(blob.length for blob in blobs.values()))
        last = Stretch(manifest_name(), 0, len(encoded))
        self._store.put(area, last.object, encoded)
        size = self._store.join(name, (*stretches, last))
        try:
            pack = NewPack(name, size, tuple(blobs.values()), area)
            checkpoint = commit(self._catalog, replace(new, new_bytes=size), pack)
        except BaseException:
            self._abandon_if_sealed(name)
            raise
        if checkpoint.new_bytes == 0:
            self.abandon(name)  # other uploads stored the same bytes meanwhile
        return checkpoint

    @as_step("stage")
    def stage_parts(self, staged: Staged) -> None:
        """Store the blobs that an upload in parts has brought, without a checkpoint that refers to them, and end the
        upload. They are kept as long as the upload would have been kept, or at least for the grace of a sweep.

        Raises MissingBlobs for blobs that the upload relied on and that are gone by now, QuotaExceeded, and Gone if the
        upload is gone.
        """
        namespace, lengths = staged.namespace, staged.lengths
        known, name = at_hand(self._catalog, self._store, namespace, lengths), joined_name(staged.area)
        blobs = {
            blob.digest: Blob(blob.digest, name, place, blob.length, blob.crc32, blob.blocks)
            for place, blob in staged.placed
            if blob.digest not in known
        }
        if blobs:
            with self._catalog.read() as s:
                namespaces.check_room(s, namespace, sum(blob.length for blob in blobs.values()))
            size = self._store.join(name, staged.stretches)
            try:
                staging.stage(self._catalog, namespace, NewPack(name, size, tuple(blobs.values()), staged.area))
            except BaseException:
                self._abandon_if_sealed(name)
                raise
        staging.keep(self._catalog, namespace, lengths)
        if not blobs:
            staging.forget_upload(self._catalog, namespace, staged.area)
            self._delete(staged.area)

    def _end_staging(self, names: Collection[str]) -> None:
        """Let packs that were staged for a checkpoint, which is committed now, be like any others."""
        try:
            with self._catalog.read() as s:
                leased = packs.leased(s, names)
            if leased:
                with self._catalog.write_own_rows() as w:
                    packs.end_staging(w, leased)
        except StateroomError:
            _log.exception("leases of staged packs could not be ended; they end by themselves")

    def _abandon_if_sealed(self, name: str) -> None:
        """Remove the pack of a commit that broke off. A pack that was not sealed is still that of its upload."""
        try:
            with self._catalog.read() as s:
                is_sealed = packs.is_sealed(s, name)
        except StateroomError:
            _log.exception("pack %s could not be removed", name)
        else:
            if is_sealed:
                self.abandon(name)

    def _delete(self, name: str) -> None:
        try:
            self._store.delete(name)
        except StateroomError:
            _log.exception("the objects of upload %s could not be deleted; the sweep deletes them", name)

    def _commit(self, name: str, file: OpenFile, new: NewCheckpoint, found: Sequence[FoundBlob]) -> Checkpoint:
        size = file.size
        try:
            plan = plan_pack(name, size, found, self._known(new))
            self._write(plan, file)
            here = {blob.digest for blob in found}
            for _ in range(_RETRIES):
                try:
                    return self._publish(name, new, plan)
                except MissingBlobs as gone:
                    if not here.issuperset(gone.digests):  # an upload in parts, without these blobs
                        raise
                if plan is not None and plan.adopt:  # the pack has these blobs; only their rows were missing
                    plan = plan_adoption(name, size, found, self._known(new))
                else:
                    self.abandon(name)
                    name = new_name()  # the last pack may be sealed, and sealed packs never change
                    self.begin(name, own_parent(new.model, new.parent))
                    plan = plan_copy(name, found, self._known(new))  # only now: the abandoned blobs are unknown again
                    self._write(plan, file)
            return self._publish(name, new, plan)
        except BaseException:
            self.abandon(name)
            raise

    def _known(self, new: NewCheckpoint) -> Mapping[Digest, Blob]:
        return at_hand(self._catalog, self._store, new.model.namespace, new.blobs)

    @as_step("store.write")
    def _write(self, plan: PackPlan | None, file: OpenFile) -> None:
        if plan is None:
            return
        if plan.adopt:
            file.append_spans(plan.spans)
            self._store.adopt(plan.name, file.given_away())
        else:
            self._store.create(plan.name, file.path, plan.spans)

    def _publish(self, name: str, new: NewCheckpoint, plan: PackPlan | None) -> Checkpoint:
        if plan is None:
            return commit(self._catalog, new, None, forget_pack=name)
        pack = NewPack(plan.name, plan.size, plan.blobs)
        checkpoint = commit(self._catalog, replace(new, new_bytes=plan.size), pack)
        if checkpoint.new_bytes == 0:
            self.abandon(plan.name)  # other uploads stored the same bytes meanwhile
        return checkpoint
