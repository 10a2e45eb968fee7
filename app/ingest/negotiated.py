"""An upload in parts: announce what there is, send what is missing, commit.

Nothing that the client says is believed. A block is written only when it has the digest that was announced for it,
what is committed is what our own reader finds in the file, and that has to be split just as it was announced.

An upload lies in the data dir of the server that it was announced to; others that share the catalog refuse its parts
(Elsewhere) before they read them.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from ..catalog import Catalog, uploads
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
from ..values.checkpoint import Blob, Checkpoint, Fields, ModelName
from ..values.digest import Digest
from ..values.manifest import Manifest, is_one_element
from ..values.span import Span
from ..values.split import Split
from .arrived import Arrived, storage_digests
from .blocks import receive_blocks
from .body import Body
from .commit import Committer
from .describe import Source, describe
from .digest import digest_bytes
from .recheck import lost

_log = logging.getLogger(__name__)

MAX_PART_SIZE = 64 * 1024 * 1024
"""Bytes that one request may bring: what has to be sent again when it breaks off."""

CACHED_SPLITS = 64 * 1024 * 1024
"""Bytes."""

BEGINS = 100
"""How often an upload is begun anew because others, who announced the same, have committed it meanwhile."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One that was announced, and has not been committed."""

    id: str
    model: ModelName
    split: Split
    original: bool
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """``missing`` are the blocks that have to be sent, in runs."""

    upload: Upload
    missing: tuple[range, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of what is missing."""
        return sum(self.upload.split.length(run) for run in self.missing)


class Negotiated:
    """All but ``receive`` block."""

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

    def begin(self, model: ModelName, split: Split, original: bool) -> Progress:
        """Announce an upload, or the same again; what of it is missing. Raises StorageFull where there is no room."""
        announced = split.to_bytes()
        self._partials.room.check(len(announced))
        for _ in range(BEGINS - 1):
            with suppress(Gone):
                return self._begin(model, split, original, announced)
        return self._begin(model, split, original, announced)

    def _begin(self, model: ModelName, split: Split, original: bool, announced: bytes) -> Progress:
        """Raises Gone where others commit or give up the same upload meanwhile."""
        with self._catalog.write() as w:
            upload_id = uploads.begin(w, new_name(), self._partials.holder.id, model, announced, original)
        if not self._partials.holds(upload_id):
            with self._catalog.write() as w:
                uploads.forget_parts(w, upload_id)
            self._partials.create(upload_id, split.size)
        self._splits.get(upload_id, lambda: split)  # there already, so that it is not read and made once more
        progress = self.progress(model, upload_id)
        try:
            self._partials.room.check(progress.nbytes)
        except StorageFull:
            self._forget(upload_id)
            raise
        return progress

    def find(self, model: ModelName, upload_id: str) -> Upload:
        """Raises Gone ``upload-gone``, which is Elsewhere where another server has it."""
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
        """Where an upload stands. Raises Gone, Elsewhere."""
        upload = self.find(model, upload_id)
        with self._partials.opened(upload_id), self._catalog.read() as s:
            arrived = Arrived(upload.split, uploads.parts(s, upload_id), self._digests_of(upload))
        return Progress(upload, arrived.missing(self._known(upload, arrived)))

    def _digests_of(self, upload: Upload) -> Sequence[Digest]:
        return self._digests.get(upload.id, lambda: storage_digests(upload.split))

    async def receive(self, upload: Upload, numbers: range, body: Body) -> None:
        """Take in a part. When this returns, it is as durable as this server makes things.

        Raises InvalidRequest ``digest-mismatch``, IncompleteUpload, StoreError, Gone ``upload-gone``.
        """
        async with self._partials.room.promised(upload.split.length(numbers)):
            await self._receive(upload, numbers, body)

    async def _receive(self, upload: Upload, numbers: range, body: Body) -> None:
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
        """Make it the next version of ``model``; and whether an earlier try, with the same idempotency key, did

        Raises MissingBlobs where something has to be sent first, InvalidRequest ``split-mismatch``, Gone, Elsewhere,
        Conflict (``commit-in-progress``), and what ``Ingest.commit`` raises. A file that is refused is given up.
        """
        key = fields.idempotency_key or f"upload {upload_id}"  # which no user's key can be: theirs have no blanks
        try:
            upload = self.find(model, upload_id)
            with self._partials.opened(upload_id) as file, file.held(upload.split.size):
                try:
                    checkpoint = self._store_all(upload, file, replace(fields, idempotency_key=key))
                except RefusedCheckpoint:
                    self._forget(upload_id)
                    raise
                self._forget(upload_id, committed=True)  # while it is held: the file is a pack's from now on
                return checkpoint, False
        except (Gone, KeyInUse):
            with self._catalog.read() as s:
                first = find_by_key(s, model, key)
            if first is None:
                raise
            return first, True

    def abandon(self, model: ModelName, upload_id: str) -> None:
        """Give it up, whichever server has it: its file goes when that one looks for what is left. Raises Gone."""
        with self._catalog.write() as w:
            if uploads.find(w, model, upload_id) is None or not uploads.forget(w, upload_id):
                raise gone()
        self._partials.remove(upload_id)

    def _store_all(self, upload: Upload, file: PartialFile, fields: Fields) -> Checkpoint:
        arrived = Arrived(upload.split, self._recheck(upload, file), self._digests_of(upload))
        known = self._known(upload, arrived)
        if absent := arrived.absent(known):
            reason = f"{len(absent)} blobs have not arrived: ask what is missing, and send it"
            raise MissingBlobs(reason, digests=absent)
        index = index_file(file.path, current().is_given_up)
        if self._fill_in(upload, file, index.manifest, arrived, known):
            index = index_file(file.path, current().is_given_up)
        digested = arrived.digested(file, index.manifest, known)
        encoded = encode(digested.manifest)
        manifest = digest_bytes(encoded, file.append(encoded))
        new = describe(upload.model, fields, index, digested, manifest, Source(None, None, upload.original))
        name = new_name()
        self._committer.begin(name)
        return self._committer.commit(name, file, new, (*digested.storages, digested.frame, manifest))

    def _recheck(self, upload: Upload, file: PartialFile) -> list[uploads.Part]:
        """The parts that have arrived, and are there; what is not there has to be sent again."""
        with self._catalog.read() as s:
            parts = uploads.parts(s, upload.id)
        gone_parts = lost(file, upload.split, parts, self._threads)
        if gone_parts:
            _log.error("upload %s: %d of its parts arrived and are not in its file", upload.id, len(gone_parts))
            with self._catalog.write() as w:
                uploads.forget_lost(w, upload.id, gone_parts)
        return [part for part in parts if part not in gone_parts]

    def _known(self, upload: Upload, arrived: Arrived) -> Mapping[Digest, Blob]:
        """The storages that need not come."""
        return at_hand(self._catalog, self._store, upload.model.namespace, arrived.lengths)

    def _fill_in(
        self,
        upload: Upload,
        file: PartialFile,
        manifest: Manifest,
        arrived: Arrived,
        known: Mapping[Digest, Blob],
    ) -> bool:
        """Numbers at the top level are read out of storages, and of those that were not sent the file has holes: fill
        in such ones. Tells whether there were any. Raises MissingBlobs for one that is damaged where it is stored.
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
            reason = f"what was stored is damaged ({error.detail}): ask what is missing, and send it"
            raise MissingBlobs(reason, digests=[blob.digest]) from error

    def _note(self, upload_id: str, part: uploads.Part) -> None:
        with self._catalog.write() as w:
            if not uploads.add_part(w, upload_id, part):
                raise gone()

    def _forget(self, upload_id: str, *, committed: bool = False) -> None:
        """Its file, then its row."""
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
