"""An upload in parts: announce the file's blocks, send the missing ones, commit.

The server trusts nothing that the client says. It writes a block only if the block has its announced digest. It commits
only the result of its own reader, and the file has to be split exactly as announced.

An upload is in the data dir of the server that it was announced to. Other servers with the same catalog refuse its
parts (Elsewhere) before they read them.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from ..catalog import Catalog, namespaces, uploads
from ..catalog.idempotency import find as find_by_key
from ..concurrency.cancellation import current
from ..concurrency.single_flight_cache import Cache
from ..damage import at_hand, look_again
from ..errors import (
    DamagedBlob,
    Gone,
    KeyInUse,
    MissingBlobs,
    PackMissing,
    QuotaExceeded,
    RefusedCheckpoint,
    StateroomError,
    StorageFull,
)
from ..formats.manifest_json import encode
from ..sandbox.index_file import index_file
from ..store import PackStore, PartialFile, Partials
from ..store.keys import new_name
from ..store.partial import elsewhere, gone
from ..store.verified import indexes_of, verified_blocks
from ..values.checkpoint import Blob, Checkpoint, CheckpointName, Fields, ModelName, own_parent
from ..values.digest import Digest
from ..values.manifest import Manifest, is_one_element
from ..values.span import Span
from ..values.split import Split
from .arrived import Arrived, storage_digests
from .blocks import receive_blocks
from .body import UploadBody
from .commit import Committer
from .describe import Source, describe
from .digest import digest_bytes
from .recheck import lost

_log = logging.getLogger(__name__)

MAX_PART_SIZE = 64 * 1024 * 1024
"""Most bytes in one request. They have to be sent again if the request breaks off."""

CACHED_SPLITS = 64 * 1024 * 1024
"""Size of the cache of splits, in bytes."""

BEGINS = 100
"""Most attempts to begin an upload while other clients commit the same upload."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was announced and is not committed."""

    id: str
    model: ModelName
    split: Split
    original: bool
    kept_until: datetime


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
        self, catalog: Catalog, store: PackStore, partials: Partials, committer: Committer, threads: Executor
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._partials = partials
        self._committer = committer
        self._threads = threads
        self._splits: Cache[Split] = Cache(CACHED_SPLITS, Split.weight)
        self._digests: Cache[Sequence[Digest]] = Cache(CACHED_SPLITS, lambda digests: 150 * len(digests))

    def begin(self, model: ModelName, split: Split, original: bool, parent: CheckpointName | None = None) -> Progress:
        """Announce an upload, new or again, and return its progress. Until it ends, retention keeps ``parent``. Raises
        StorageFull or QuotaExceeded if there is no room.
        """
        announced = split.to_bytes()
        self._partials.room.check(len(announced))
        for _ in range(BEGINS - 1):
            with suppress(Gone):
                return self._begin(model, split, original, parent, announced)
        return self._begin(model, split, original, parent, announced)

    def _begin(
        self, model: ModelName, split: Split, original: bool, parent: CheckpointName | None, announced: bytes
    ) -> Progress:
        """Begin once. Raises Gone if another client commits or gives up the same upload meanwhile."""
        with self._catalog.write() as w:
            upload_id = uploads.begin(w, new_name(), self._partials.holder.id, model, announced, original, parent)
        if not self._partials.holds(upload_id):
            with self._catalog.write() as w:
                uploads.forget_parts(w, upload_id)
            self._partials.create(upload_id, split.size)
        self._splits.get(upload_id, lambda: split)  # fill the cache, so that the split is not read and parsed again
        progress = self.progress(model, upload_id)
        try:
            self._partials.room.check(progress.nbytes)
            with self._catalog.read() as s:
                namespaces.check_room(s, model.namespace, progress.nbytes)
        except (StorageFull, QuotaExceeded):
            self._forget(upload_id)
            raise
        return progress

    def find(self, model: ModelName, upload_id: str) -> Upload:
        """Return the upload. Raises Gone ``upload-gone``, or Elsewhere if another server has it."""
        with self._catalog.read() as s:
            found = uploads.find(s, model, upload_id)
        if found is None:
            raise gone()
        if found.holder != self._partials.holder.id:
            raise elsewhere()
        split = self._splits.get(upload_id, lambda: self._split(upload_id))
        return Upload(upload_id, model, split, found.original, found.kept_until)

    def _split(self, upload_id: str) -> Split:
        with self._catalog.read() as s:
            data = uploads.split_of(s, upload_id)
        if data is None:
            raise gone()
        return Split.from_bytes(data)

    def progress(self, model: ModelName, upload_id: str) -> Progress:
        """The progress of an upload. Raises Gone, Elsewhere."""
        upload = self.find(model, upload_id)
        with self._partials.opened(upload_id), self._catalog.read() as s:
            arrived = Arrived(upload.split, uploads.parts(s, upload_id), self._digests_of(upload))
        return Progress(upload, arrived.missing(self._known(upload, arrived)))

    def _digests_of(self, upload: Upload) -> Sequence[Digest]:
        return self._digests.get(upload.id, lambda: storage_digests(upload.split))

    async def receive(self, upload: Upload, numbers: range, body: UploadBody) -> None:
        """Receive a part. When this returns, the part is as durable as this server's settings demand.

        Raises InvalidRequest ``digest-mismatch``, IncompleteUpload, StoreError, Gone ``upload-gone``.
        """
        async with self._partials.room.promised(upload.split.length(numbers)):
            await self._receive(upload, numbers, body)

    async def _receive(self, upload: Upload, numbers: range, body: UploadBody) -> None:
        loop = asyncio.get_running_loop()
        file = await loop.run_in_executor(None, self._partials.open, upload.id)
        try:
            checksums = await receive_blocks(body, file, upload.split, numbers, self._threads)
            if self._partials.durable:
                await asyncio.shield(loop.run_in_executor(None, file.sync))
            stamp = file.stamp
        finally:
            file.close()
        await loop.run_in_executor(None, self._note, upload.id, uploads.Part(numbers.start, checksums, stamp))

    def commit(self, model: ModelName, upload_id: str, fields: Fields) -> tuple[Checkpoint, bool]:
        """Make the upload the next version of ``model``. Return the checkpoint, and whether an earlier try with the
        same idempotency key made it.

        Raises MissingBlobs if blocks have to be sent first, InvalidRequest ``split-mismatch``, Gone, Elsewhere,
        Conflict (``commit-in-progress``), and the errors of ``Ingest.commit``. A refused file is given up.
        """
        key = fields.idempotency_key or f"upload {upload_id}"  # never a user's key: users' keys have no blanks
        try:
            upload = self.find(model, upload_id)
            with self._partials.opened(upload_id) as file, file.held(upload.split.size):
                try:
                    checkpoint = self._store_all(upload, file, replace(fields, idempotency_key=key))
                except RefusedCheckpoint:
                    self._forget(upload_id)
                    raise
                self._forget(upload_id, committed=True)  # while it is held: the file is a pack from now on
                return checkpoint, False
        except (Gone, KeyInUse):
            with self._catalog.read() as s:
                first = find_by_key(s, model, key)
            if first is None:
                raise
            return first, True

    def abandon(self, model: ModelName, upload_id: str) -> None:
        """Give up an upload of any server. Another server removes the file when it cleans up. Raises Gone."""
        with self._catalog.write() as w:
            if uploads.find(w, model, upload_id) is None or not uploads.forget(w, upload_id):
                raise gone()
        self._partials.remove(upload_id)

    def _store_all(self, upload: Upload, file: PartialFile, fields: Fields) -> Checkpoint:
        arrived = Arrived(upload.split, self._recheck(upload, file), self._digests_of(upload))
        known = self._known(upload, arrived)
        if absent := arrived.absent(known):
            reason = f"{len(absent)} blobs have not arrived: get the missing blocks of the upload, and send them"
            raise MissingBlobs(reason, digests=absent)
        index = index_file(file.path, current().is_given_up)
        if self._fill_in(upload, file, index.manifest, arrived, known):
            index = index_file(file.path, current().is_given_up)
        digested = arrived.digested(file, index.manifest, known)
        encoded = encode(digested.manifest)
        manifest = digest_bytes(encoded, file.append(encoded))
        new = describe(upload.model, fields, index, digested, manifest, Source(None, None, upload.original))
        name = new_name()
        self._committer.begin(name, own_parent(upload.model, fields.parent))
        return self._committer.commit(name, file, new, (*digested.storages, digested.frame, manifest))

    def _recheck(self, upload: Upload, file: PartialFile) -> list[uploads.Part]:
        """The arrived parts that are in the file. Parts that are not in the file are forgotten, to be sent again."""
        with self._catalog.read() as s:
            parts = uploads.parts(s, upload.id)
        gone_parts = lost(file, upload.split, parts, self._threads)
        if gone_parts:
            _log.error("upload %s: %d parts have arrived but are not in its file", upload.id, len(gone_parts))
            with self._catalog.write() as w:
                uploads.forget_lost(w, upload.id, gone_parts)
        return [part for part in parts if part not in gone_parts]

    def _known(self, upload: Upload, arrived: Arrived) -> Mapping[Digest, Blob]:
        """The storages that need not be sent."""
        return at_hand(self._catalog, self._store, upload.model.namespace, arrived.lengths)

    def _fill_in(
        self,
        upload: Upload,
        file: PartialFile,
        manifest: Manifest,
        arrived: Arrived,
        known: Mapping[Digest, Blob],
    ) -> bool:
        """Fill in storages that were not sent (holes in the file) and hold a number at the top level, which the indexer
        reads. Return whether there were any. Raises MissingBlobs if the stored blob is damaged.
        """
        numbers = {
            tensor.storage
            for tensor in manifest.tensors
            if len(tensor.path) == 1 and tensor.shape is not None and is_one_element(tensor.shape)
        }
        spans = {manifest.storages[number].span for number in numbers if number is not None}
        holes = [(span, digest) for span, digest in arrived.holes() if span in spans]
        twins = {blob.digest: blob.spans[0] for blob in arrived.found()}
        for span, digest in holes:
            position = span.start
            blocks = self._stored(upload, known[digest]) if digest in known else [file.read(twins[digest])]
            for block in blocks:
                file.write([Span(position, position + len(block))], block)
                position += len(block)
        return bool(holes)

    def _stored(self, upload: Upload, blob: Blob) -> Iterator[memoryview]:
        try:
            yield from verified_blocks(self._store, blob)
        except (DamagedBlob, PackMissing) as error:
            look_again(self._catalog, self._store, upload.model.namespace, [(blob, indexes_of(blob))])
            reason = f"a stored blob is damaged ({error.detail}): get the missing blocks of the upload, and send them"
            raise MissingBlobs(reason, digests=[blob.digest]) from error

    def _note(self, upload_id: str, part: uploads.Part) -> None:
        with self._catalog.write() as w:
            if not uploads.add_part(w, upload_id, part):
                raise gone()

    def _forget(self, upload_id: str, *, committed: bool = False) -> None:
        """Remove the upload's file, then its row."""
        try:
            self._partials.remove(upload_id)
            with self._catalog.write() as w:
                if committed:
                    uploads.finish(w, upload_id)
                else:
                    uploads.forget(w, upload_id)
        except StateroomError:
            # The checkpoint is committed or refused either way; the sweep removes the rest.
            _log.exception("upload %s could not be removed", upload_id)
