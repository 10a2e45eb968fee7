"""The write path: receive, index, digest, commit. An interrupted upload leaves nothing behind."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import wait

from ..catalog import Catalog, hub, xorbs
from ..catalog.session import WriteSession
from ..concurrency.cancellation import current
from ..concurrency.clean_up import clean_up
from ..concurrency.fair_pool import FairPool
from ..concurrency.scheduling import give_way
from ..errors import InvalidRequest, StoreError
from ..formats.manifest_json import encode
from ..retention import Retention
from ..sandbox.index_file import index_file
from ..store import PackStore, Spool, SpoolFile
from ..store.keys import new_name
from ..values.checkpoint import Checkpoint, CheckpointName, Fields, ModelName
from ..values.hub import Xorb
from ..values.tracing import step
from .body import UploadBody
from .commit import Committer
from .describe import Source, describe
from .digest import digest_bytes, digest_upload
from .negotiated import Negotiated
from .receive import Arrival, SpooledUpload, receive

_log = logging.getLogger(__name__)

_MAX_THREADS = 4
"""Most threads that hash for all uploads: each holds a window of 16 MiB, and few disks keep up with more."""


class Ingest:
    """The write path of a server process: one instance for each process. Needs ``close``."""

    def __init__(self, catalog: Catalog, store: PackStore, spool: Spool, retention: Retention) -> None:
        self._committer = Committer(catalog, store, retention)
        self._spool = spool
        self._threads = FairPool(min(_MAX_THREADS, os.cpu_count() or 1), "digest", give_way)
        self.negotiated = Negotiated(catalog, store, spool, self._committer, self._threads)
        self._cleaning: set[asyncio.Task[None]] = set()

    async def receive(
        self,
        body: UploadBody,
        expected_size: int | None,
        parent: CheckpointName | None = None,
        *,
        sha256: str | None = None,
    ) -> SpooledUpload:
        """Receive an upload of ``expected_size`` bytes (None: any number), to be committed or discarded. Until then,
        retention keeps ``parent``. With ``sha256`` (hex), the bytes have to match it.

        An upload too large for the disk is refused before its first byte is read. Raises IncompleteUpload,
        NotACheckpoint (an empty body), InvalidRequest (``digest-mismatch``), StoreError (StorageFull), and our own
        errors that ``body`` raises. Then, and on cancellation, nothing of the upload is kept.
        """
        async with self._spool.room.promised(expected_size or 0) as promise:
            return await self._receive(body, expected_size, parent, sha256, promise.kept)

    async def _receive(
        self,
        body: UploadBody,
        expected_size: int | None,
        parent: CheckpointName | None,
        sha256: str | None,
        on_stored: Callable[[int], None],
    ) -> SpooledUpload:
        name = new_name()
        arrival = Arrival(lambda: self._open(name, parent, with_sha256=sha256 is not None), on_stored, expected_size)
        try:
            with step("receive"):
                file = await receive(body, arrival, expected_size)
            _check_sha256(file, sha256)
        except BaseException:
            # A separate task, because a cancelled task cannot wait. Keep a reference, or it might be collected.
            cleaning = asyncio.create_task(self._clean_up(name, arrival))
            self._cleaning.add(cleaning)
            cleaning.add_done_callback(self._cleaning.discard)
            await asyncio.shield(cleaning)
            raise
        return SpooledUpload(name, file, file.size, file.digest, file.sha256)

    def make(
        self, chunks: Iterable[memoryview], on_stored: Callable[[int], None], parent: CheckpointName | None = None
    ) -> SpooledUpload:
        """Write a file that the server itself makes, to be committed or discarded. Blocks.

        ``on_stored`` gets the size of each chunk in bytes when the chunk is in the file. Raises StoreError and the
        errors of ``chunks``; then nothing is kept.
        """
        name, file = new_name(), None
        try:
            file = self._open(name, parent, with_sha256=False)
            for chunk in chunks:
                for call in wait(file.put(chunk)).done:
                    call.result()
                on_stored(len(chunk))
        except BaseException:
            if file is not None:
                self._remove(file)
            self._committer.abandon(name)
            raise
        return SpooledUpload(name, file, file.size, file.digest, file.sha256)

    def commit(self, upload: SpooledUpload, model: ModelName, fields: Fields) -> Checkpoint:
        """Make ``upload`` the next version of ``model``. Blocks: call it in a thread.

        Raises RefusedCheckpoint, StoreError and the catalog's errors (KeyInUse, if the idempotency key of ``fields``
        has been used meanwhile); then nothing of the upload is kept.
        """
        try:
            with step("index"):
                index = index_file(upload.file.path, current().is_given_up)
            with step("digest"):
                digested = digest_upload(upload.file, index.manifest, self._threads)
            encoded = encode(digested.manifest)
            manifest = digest_bytes(encoded, upload.file.append(encoded))
            found = (*digested.storages, digested.frame, manifest)
            source = Source(upload.digest, upload.sha256)
            new = describe(model, fields, index, digested, manifest, source)
            checkpoint = self._committer.commit(upload.name, upload.file, new, found)
        except BaseException:
            self.discard(upload)
            raise
        self._remove(upload.file)
        return checkpoint

    def stage(self, upload: SpooledUpload, namespace: str, sha256: str) -> None:
        """Keep ``upload`` for a day, for commits of ``namespace`` that name its SHA-256. Blocks.

        It was received with that ``sha256``. Raises StoreError; then nothing is kept.
        """
        self._stage(upload, namespace, lambda w: hub.stage(w, namespace, sha256, upload.size, upload.name))

    def stage_xorb(self, upload: SpooledUpload, namespace: str, xorb: Xorb) -> bool:
        """Keep ``upload``, the plain chunks of a xorb and the positions after them, for the files made of it. Return
        False if the xorb was kept already. Blocks. Raises QuotaExceeded and StoreError; then nothing is kept.
        """

        def keep(w: WriteSession) -> bool:
            hub.check_room(w, namespace, xorb.size)
            return xorbs.keep(w, namespace, xorb, upload.name)

        return self._stage(upload, namespace, keep)

    def _stage(self, upload: SpooledUpload, namespace: str, record: Callable[[WriteSession], bool]) -> bool:
        try:
            is_new = self._committer.stage(upload.name, upload.file, namespace, record)
        except BaseException:
            self.discard(upload)
            raise
        self._remove(upload.file)
        return is_new

    def discard(self, upload: SpooledUpload) -> None:
        """Remove an upload returned by ``receive`` that will not be committed. Blocks."""
        self._remove(upload.file)
        self._committer.abandon(upload.name)

    def close(self) -> None:
        self._threads.shutdown()

    def _open(self, name: str, parent: CheckpointName | None, *, with_sha256: bool) -> SpoolFile:
        self._committer.begin(name, parent)
        return self._spool.create(name, with_sha256=with_sha256)

    async def _clean_up(self, name: str, arrival: Arrival) -> None:
        file = await arrival.settle()
        if file is not None:
            await clean_up(self._remove, file)
        await clean_up(self._committer.abandon, name)

    def _remove(self, file: SpoolFile) -> None:
        try:
            file.discard()
        except StoreError:
            # The checkpoint is committed or refused either way; the next start clears the spool.
            _log.exception("a spool file could not be removed")


def _check_sha256(file: SpoolFile, expected: str | None) -> None:
    if expected is not None and file.sha256 != expected:
        raise InvalidRequest(
            f"the body has the SHA-256 {file.sha256}, but the request says {expected}: send the file again, or its "
            "own hash",
            code="digest-mismatch",
        )
