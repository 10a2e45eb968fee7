"""Reading what an upload in parts has brought: the parser gets a file of it, with holes where it needs no bytes."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ..catalog import Catalog, uploads
from ..damage import look_again
from ..errors import DamagedBlob, MissingBlobs, PackMissing
from ..store import PackStore, SparseFile
from ..store.digests import block_digest
from ..store.verified import indexes_of, verified_blocks
from ..values.checkpoint import Blob, ModelName
from ..values.digest import Digest
from ..values.manifest import Manifest, is_one_element
from ..values.span import Span
from ..values.split import Split
from .arrived import Arrived


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was announced and is not committed."""

    id: str
    model: ModelName
    split: Split
    original: bool
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class Filling:
    """The filling of ``file`` with blocks of ``upload`` that have arrived, or that are stored as ``known`` blobs.

    A block that is not in the store as it arrived is forgotten, and a stored blob that is damaged is marked; both are
    MissingBlobs, so that they are sent again.
    """

    catalog: Catalog
    store: PackStore
    upload: Upload
    arrived: Arrived
    known: Mapping[Digest, Blob]
    file: SparseFile

    def copy(self, wanted: range) -> None:
        """Copy the blocks ``wanted``, which have arrived, to their places."""
        split = self.upload.split
        for numbers, stretch in self.arrived.stretches():
            position = stretch.start
            for number in numbers:
                end = position + split.length(range(number, number + 1))
                if number in wanted:
                    self.file.write(split.spans(number), self._block(number, stretch.object, Span(position, end)))
                position = end

    def copy_numbers(self, manifest: Manifest) -> bool:
        """Copy the storages with a number at the top level, which the indexer reads. Return whether there are any."""
        storages = list(self.upload.split.storages)
        with_numbers = {
            manifest.storages[storage].span
            for tensor in manifest.tensors
            if tensor.storage is not None
            and len(tensor.path) == 1
            and tensor.shape is not None
            and is_one_element(tensor.shape)
            for storage in manifest.stored_in(tensor.storage)
        }
        pieces = {blob.digest: bisect_left(storages, blob.spans[0]) + 1 for blob in self.arrived.found()}
        wanted = [
            (span, digest) for span, digest in zip(storages, self.arrived.digests, strict=True) if span in with_numbers
        ]
        for span, digest in wanted:
            if digest in pieces:  # this storage, or an equal one
                self.copy(self.upload.split.numbers(pieces[digest]))
                blocks = iter([self.file.read(storages[pieces[digest] - 1])])
            else:
                blocks = self._stored(self.known[digest])
            position = span.start
            for block in blocks:
                self.file.write([Span(position, position + len(block))], block)
                position += len(block)
        return bool(wanted)

    def _block(self, number: int, name: str, span: Span) -> memoryview:
        try:
            block = self.store.read_object(self.upload.id, name, span)
        except (PackMissing, DamagedBlob):
            block = memoryview(b"")
        if block_digest(block) == self.upload.split.digests(range(number, number + 1)):
            return block
        with self.catalog.write(self.upload.model.namespace) as w:
            if uploads.find(w, self.upload.model, self.upload.id) is None:
                raise uploads.gone()
            lost = [part for part in uploads.parts(w, self.upload.id) if number in part.numbers]
            uploads.forget_lost(w, self.upload.id, lost)
        reason = f"block {number} was damaged in the store: get the missing blocks of the upload, and send them"
        raise MissingBlobs(reason, digests=[])

    def _stored(self, blob: Blob) -> Iterator[memoryview]:
        try:
            yield from verified_blocks(self.store, blob)
        except (DamagedBlob, PackMissing) as error:
            look_again(self.catalog, self.store, self.upload.model.namespace, [(blob, indexes_of(blob))])
            reason = f"a stored blob is damaged ({error.detail}): get the missing blocks of the upload, and send them"
            raise MissingBlobs(reason, digests=[blob.digest]) from error
