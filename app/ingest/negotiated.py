"""An upload in parts: announce the file's blocks, send the missing ones, commit.

The server trusts nothing that the client says. It stores a block only if the block has its announced digest. It commits
only the result of its own reader, and the file has to be split exactly as announced.

Each run of blocks that arrives becomes an object in the store, so any server that shares the catalog and the store may
receive it. The commit makes a pack of the objects: a list of them.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace

from ..catalog import Catalog, namespaces, uploads
from ..catalog.idempotency import find as find_by_key
from ..catalog.pace import Pace
from ..concurrency.cancellation import current
from ..concurrency.single_flight_cache import Cache
from ..damage import at_hand
from ..errors import (
    Gone,
    InvalidRequest,
    KeyInUse,
    MissingBlobs,
    QuotaExceeded,
    RefusedCheckpoint,
    StateroomError,
    StorageFull,
)
from ..formats.manifest_json import encode
from ..sandbox.index_file import index_file
from ..store import PackStore, Spool
from ..store.keys import new_name, object_name
from ..values.checkpoint import Blob, Checkpoint, CheckpointName, Fields, ModelName
from ..values.digest import Digest
from ..values.span import Span
from ..values.split import Split
from .arrived import Arrived, storage_digests
from .blocks import receive_blocks
from .body import UploadBody
from .commit import Brought, Committer, Staged
from .describe import Source, describe
from .digest import digest_bytes
from .fill_in import Filling, Upload

_log = logging.getLogger(__name__)

MAX_PART_SIZE = 64 * 1024 * 1024
"""Most bytes in one request. They have to be sent again if the request breaks off."""

CACHED_SPLITS = 64 * 1024 * 1024
"""Size of the cache of splits, in bytes."""

BEGINS = 100
"""Most attempts to begin an upload while other clients commit the same upload."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of an upload. ``missing`` are runs of the blocks that have to be sent."""

    upload: Upload
    missing: tuple[range, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the missing blocks."""
        return sum(self.upload.split.length(run) for run in self.missing)


class Negotiated:
    """The service for uploads in parts. All methods except ``receive`` block."""

    def __init__(
        self, catalog: Catalog, store: PackStore, spool: Spool, committer: Committer, threads: Executor
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._spool = spool
        self._committer = committer
        self._threads = threads
        self._splits: Cache[Split] = Cache(CACHED_SPLITS, Split.weight)
        self._digests: Cache[Sequence[Digest]] = Cache(CACHED_SPLITS, lambda digests: 150 * len(digests))

    def begin(self, model: ModelName, split: Split, original: bool, parent: CheckpointName | None = None) -> Progress:
        """Announce an upload, new or again, and return its progress. Until it ends, retention keeps ``parent``. Raises
        StorageFull or QuotaExceeded if there is no room.
        """
        announced = split.to_bytes()
        self._spool.room.check(len(announced))
        for _ in range(BEGINS - 1):
            with suppress(Gone):
                return self._begin(model, split, original, parent, announced)
        return self._begin(model, split, original, parent, announced)

    def _begin(
        self, model: ModelName, split: Split, original: bool, parent: CheckpointName | None, announced: bytes
    ) -> Progress:
        """Begin once. Raises Gone if another client commits or gives up the same upload meanwhile."""
        with self._catalog.write(model.namespace) as w:
            upload_id = uploads.begin(w, new_name(), model, announced, original, parent)
        self._splits.get(upload_id, lambda: split)  # fill the cache, so that the split is not read and parsed again
        self._check_parts(model, upload_id)
        progress = self.progress(model, upload_id)
        try:
            self._store.room.check(progress.nbytes)
            with self._catalog.read() as s:
                namespaces.check_room(s, model.namespace, progress.nbytes)
        except (StorageFull, QuotaExceeded):
            self._forget(model, upload_id)
            raise
        return progress

    def find(self, model: ModelName, upload_id: str) -> Upload:
        """Return the upload. Raises Gone ``upload-gone``."""
        with self._catalog.read() as s:
            found = uploads.find(s, model, upload_id)
        if found is None:
            raise uploads.gone()
        split = self._splits.get(upload_id, lambda: self._split(upload_id))
        return Upload(upload_id, model, split, found.original, found.kept_until)

    def _split(self, upload_id: str) -> Split:
        with self._catalog.read() as s:
            data = uploads.split_of(s, upload_id)
        if data is None:
            raise uploads.gone()
        return Split.from_bytes(data)

    def progress(self, model: ModelName, upload_id: str) -> Progress:
        """The progress of an upload. Raises Gone."""
        upload = self.find(model, upload_id)
        with self._catalog.read() as s:
            arrived = Arrived(upload.split, uploads.parts(s, upload_id), self._digests_of(upload))
        return Progress(upload, arrived.missing(self._known(upload, arrived)))

    def _digests_of(self, upload: Upload) -> Sequence[Digest]:
        return self._digests.get(upload.id, lambda: storage_digests(upload.split))

    async def receive(self, upload: Upload, numbers: range, body: UploadBody) -> None:
        """Receive a part. When this returns, the part is as durable as the store makes it.

        Raises InvalidRequest ``digest-mismatch``, IncompleteUpload, StoreError, Gone ``upload-gone``.
        """

        def put(group: range, data: memoryview) -> None:
            self._store.put(upload.id, object_name(group), data)

        async with self._store.room.promised(upload.split.length(numbers)):
            parts = await receive_blocks(body, put, upload.split, numbers, self._threads)
        await asyncio.get_running_loop().run_in_executor(None, self._note, upload.model, upload.id, parts)

    def commit(self, model: ModelName, upload_id: str, fields: Fields) -> tuple[Checkpoint, bool]:
        """Make the upload the next version of ``model``. Return the checkpoint, and whether an earlier try with the
        same idempotency key made it.

        Raises MissingBlobs if blocks have to be sent first, InvalidRequest ``split-mismatch``, Gone, and the errors of
        ``Ingest.commit``. A refused file is given up. Of several commits at once, one succeeds.
        """
        key = fields.idempotency_key or f"upload {upload_id}"  # never a user's key: users' keys have no blanks
        try:
            upload = self.find(model, upload_id)
            try:
                return self._store_all(upload, replace(fields, idempotency_key=key)), False
            except RefusedCheckpoint:
                self._forget(model, upload_id)
                raise
        except (Gone, KeyInUse):
            with self._catalog.read() as s:
                first = find_by_key(s, model, key)
            if first is None:
                raise
            return first, True

    def stage(self, model: ModelName, upload_id: str) -> None:
        """Keep the blobs of an upload that is nothing but blobs, for a checkpoint that another upload will commit.

        Raises InvalidRequest ``bad-split`` for one with a frame, MissingBlobs if blocks have to be sent first, Gone.
        """
        upload = self.find(model, upload_id)
        split = upload.split
        if frame := split.length(split.numbers(0)):
            raise InvalidRequest(
                f"{frame:,} bytes of the upload belong to no storage: commit it as a checkpoint, or announce an upload "
                "whose storages, each of more than 4096 bytes, are all of it",
                code="bad-split",
            )
        arrived, _ = self._arrived(upload)
        stretches, places = arrived.joined()
        placed = [(places[blob.spans[0].start], blob) for blob in arrived.found()]
        self._committer.stage_parts(Staged(model.namespace, upload.id, arrived.lengths, stretches, placed))

    def abandon(self, model: ModelName, upload_id: str) -> None:
        """Give up an upload. Raises Gone."""
        with self._catalog.write(model.namespace) as w:
            if uploads.find(w, model, upload_id) is None or not uploads.forget(w, upload_id):
                raise uploads.gone()
        self._store.delete(upload_id)

    def _store_all(self, upload: Upload, fields: Fields) -> Checkpoint:
        arrived, known = self._arrived(upload)
        with self._spool.sparse(upload.split.size) as file:
            filling = Filling(self._catalog, self._store, upload, arrived, known, file)
            filling.copy(upload.split.numbers(0))
            index = index_file(file.path, current().is_given_up)
            if filling.copy_numbers(index.manifest):
                index = index_file(file.path, current().is_given_up)
            digested = arrived.digested(file, index.manifest, known)
        encoded = encode(digested.manifest)
        manifest = digest_bytes(encoded, Span(0, len(encoded)))
        new = describe(upload.model, fields, index, digested, manifest, Source(None, None, upload.original))
        stretches, places = arrived.joined()
        placed = [(places[blob.spans[0].start], blob) for blob in digested.storages]
        brought = Brought(upload.id, stretches, (*placed, (0, digested.frame)), encoded, manifest)
        return self._committer.commit_parts(brought, new)

    def _arrived(self, upload: Upload) -> tuple[Arrived, Mapping[Digest, Blob]]:
        """Return what has arrived, and the storages that need not arrive. Raises MissingBlobs if others are missing."""
        arrived = Arrived(upload.split, self._check_parts(upload.model, upload.id), self._digests_of(upload))
        known = self._known(upload, arrived)
        if absent := arrived.absent(known):
            self.find(upload.model, upload.id)  # was it committed meanwhile?
            reason = f"{len(absent)} blobs have not arrived: get the missing blocks of the upload, and send them"
            raise MissingBlobs(reason, digests=absent)
        return arrived, known

    def _check_parts(self, model: ModelName, upload_id: str) -> list[uploads.Part]:
        """Return the parts whose objects are in the store. The others are forgotten, to be sent again."""
        with self._catalog.read() as s:
            parts = uploads.parts(s, upload_id)
        if not parts:
            return []
        there = self._store.objects(upload_id)
        split = self._splits.get(upload_id, lambda: self._split(upload_id))
        lost = {part for part in parts if there.get(object_name(part.numbers)) != split.length(part.numbers)}
        if lost:
            _log.error("upload %s: %d parts have arrived but are not in the store", upload_id, len(lost))
            pace = Pace(200, len(lost))
            for some in pace.slices(lost):
                with self._catalog.turn(model.namespace, pace) as w:
                    uploads.forget_lost(w, upload_id, some)
        return [part for part in parts if part not in lost]

    def _known(self, upload: Upload, arrived: Arrived) -> Mapping[Digest, Blob]:
        """The storages that need not be sent."""
        return at_hand(self._catalog, self._store, upload.model.namespace, arrived.lengths)

    def _note(self, model: ModelName, upload_id: str, parts: Sequence[uploads.Part]) -> None:
        with self._catalog.write(model.namespace) as w:
            if not uploads.add_parts(w, upload_id, parts):
                raise uploads.gone()

    def _forget(self, model: ModelName, upload_id: str) -> None:
        """Give the upload up, and delete its objects."""
        try:
            with self._catalog.write(model.namespace) as w:
                is_forgotten = uploads.forget(w, upload_id)
            if is_forgotten:  # otherwise it was committed meanwhile, and its objects are those of a checkpoint
                self._store.delete(upload_id)
        except StateroomError:
            _log.exception("upload %s could not be removed", upload_id)  # the sweep removes the rest
