"""Committing: first the new bytes, durably, in a pack; then the catalog, which makes the checkpoint visible.

A blob that the namespace holds already is only referred to. It may be deleted before the commit says so, and then the
catalog names what has gone; an upload that came whole still has it, so it is stored after all and the commit is tried
again.
"""

import logging
from collections.abc import Container, Sequence
from dataclasses import replace

from ..catalog import Catalog, packs, unused
from ..catalog.commit import NewPack, commit
from ..damage import at_hand
from ..errors import MissingBlobs, StateroomError
from ..store import OpenFile, PackStore
from ..store.keys import new_name
from ..values.checkpoint import Checkpoint, NewCheckpoint
from ..values.digest import Digest
from .pack_plan import FoundBlob, PackPlan, plan_adoption, plan_copy, plan_pack

_log = logging.getLogger(__name__)

LEASE_SECONDS = 24 * 60 * 60
"""How long an upload may take from its first byte to its commit."""

_RETRIES = 4


class Committer:
    """Writes packs and commits what refers to them. For several threads at once."""

    def __init__(self, catalog: Catalog, store: PackStore) -> None:
        self._catalog = catalog
        self._store = store

    def begin(self, name: str) -> None:
        """Announce a pack, so that a crash from here on leaves nothing that cannot be found."""
        with self._catalog.write() as w:
            packs.begin(w, name, LEASE_SECONDS)

    def abandon(self, name: str) -> None:
        """Remove a pack and its row, whatever there is of them. What of a sealed pack a checkpoint refers to stays."""
        try:
            with self._catalog.read() as s:
                is_sealed = packs.is_sealed(s, name)
            if is_sealed:
                unused.release(self._catalog, name)
                with self._catalog.read() as s:
                    is_sealed = packs.is_sealed(s, name)
            if not is_sealed:
                self._store.delete(name)
                with self._catalog.write() as w:
                    packs.forget(w, name)
        except StateroomError:
            # What went wrong before is what the caller has to hear of; the next start removes the rest.
            _log.exception("pack %s could not be removed", name)

    def commit(self, name: str, file: OpenFile, new: NewCheckpoint, found: Sequence[FoundBlob]) -> Checkpoint:
        """Store what is new of the blobs ``found`` in ``file``, and make ``new`` visible, its ``new_bytes`` filled in.

        ``name`` is the pack begun for it. When this raises, it leaves no pack behind. Raises MissingBlobs where one
        that ``new`` refers to is neither in the file nor stored any more.
        """
        size = file.size
        try:
            plan = plan_pack(name, size, found, self._known(new))
            self._write(plan, file)
            here = {blob.digest for blob in found}
            for _ in range(_RETRIES):
                try:
                    return self._publish(name, new, plan)
                except MissingBlobs as gone:
                    if not here.issuperset(gone.digests):  # it came in parts, and without them
                        raise
                if plan is not None and plan.adopt:  # the pack has them; only its rows were missing
                    plan = plan_adoption(name, size, found, self._known(new))
                else:
                    self.abandon(name)
                    name = new_name()  # the last one may be sealed, and what is sealed never changes
                    self.begin(name)
                    plan = plan_copy(name, found, self._known(new))  # only now: what was abandoned is known no more
                    self._write(plan, file)
            return self._publish(name, new, plan)
        except BaseException:
            self.abandon(name)
            raise

    def _known(self, new: NewCheckpoint) -> Container[Digest]:
        return at_hand(self._catalog, self._store, new.model.namespace, new.blobs)

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
            self.abandon(plan.name)  # others have stored the same bytes meanwhile
        return checkpoint
