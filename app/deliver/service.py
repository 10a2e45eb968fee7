"""The API's entry to the read path: a checkpoint and a request become a download."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from ..catalog import plans
from ..catalog.catalog import Catalog
from ..concurrency.cancellation import current
from ..concurrency.fair_pool import FairPool
from ..concurrency.scheduling import give_way
from ..concurrency.single_flight_cache import Cache
from ..errors import Conflict, Gone, NotFound, SelectionError
from ..formats.manifest_json import decode
from ..formats.torch_zip.write import WRITER_REVISION
from ..formats.torchscript.read import FORMAT as TORCHSCRIPT
from ..select.components import choose_component, component_with_key
from ..select.one_tensor import TensorQuery
from ..select.query import StateDictQuery
from ..select.warmstart import Report, TargetTensor, match
from ..store.pack_store import PackStore
from ..values.checkpoint import Checkpoint
from ..values.folder import FORMAT as FOLDER
from ..values.manifest import Manifest
from .cast import require_torch
from .checksums import Checksums, Crc32s
from .download import Download
from .file_layout import FileLayout, layout_of, layout_of_original, presigned
from .files import StoredPath, digest_of, file_at, files_of, is_thinned
from .plan import Plan, Wanted, plan_original, plan_span
from .plan_wire import plan_here, plan_in_child, select
from .read import BlobReader
from .read_ahead import ReadAheads
from .sha256s import Sha256s
from .spans import BlobMap
from .stored_file import StoredFile
from .thinned import refuse_thinned, refuse_thinned_optimizer

CACHED_TENSORS = 1_000_000
CACHED_PLAN_BYTES = 64 * 1024 * 1024
CACHED_DRAFT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Contents:
    """A checkpoint's manifest, and the map from file positions to blobs."""

    manifest: Manifest
    blobs: BlobMap

    def weight(self) -> int:
        return self.manifest.weight()


@dataclass(frozen=True, slots=True)
class _Ready:
    """A plan whose file has its checksums, and the CRC32s of conversions that its downloads have learned."""

    plan: Plan
    crc32s: Crc32s

    def weight(self) -> int:
        return self.plan.weight()


class Deliver:
    """Planner of downloads. Every method but ``close`` may block, and must not run on an event loop.

    ``presign`` lets clients fetch large storages from the store itself.
    """

    def __init__(self, catalog: Catalog, store: PackStore, *, presign: bool = False) -> None:
        self._presign = presign
        self._catalog = catalog
        self._store = store
        self._contents: Cache[_Contents] = Cache(CACHED_TENSORS, _Contents.weight)
        self._plans: Cache[_Ready] = Cache(CACHED_PLAN_BYTES, _Ready.weight)
        self._sha256s = Sha256s(catalog)
        self._drafts: Cache[Plan] = Cache(CACHED_DRAFT_BYTES, Plan.weight)
        # No more threads than cores, since each hashes: with 6 on 2 cores, metadata waited 170 ms (p99) beside 16
        # downloads, which were no faster; with 2 of low priority, 37 ms.
        self._executor = FairPool(os.cpu_count() or 1, "window", give_way)
        self._aheads = ReadAheads(store)

    def close(self) -> None:
        self._aheads.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def manifest(self, checkpoint: Checkpoint) -> Manifest:
        return self.stored(checkpoint).manifest

    def original(self, checkpoint: Checkpoint) -> Download:
        """The file as it was uploaded, byte for byte."""
        if not checkpoint.original:
            raise NotFound(
                f"{checkpoint.model}@{checkpoint.version} was saved from memory and has no original file; use /file",
                code="no-original",
            )
        refuse_thinned(checkpoint, "the uploaded file")
        stored = self.stored(checkpoint)
        ready = _Ready(plan_original(stored.manifest), {})
        return self._download(checkpoint, stored, ready, _etag("original", checkpoint, ""), checkpoint.sha256)

    def with_sha256(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint with its ``sha256``, computed if need be. Raises the errors of ``original``."""
        return self._sha256s.fill_in(checkpoint, self.original(checkpoint))

    def file(self, checkpoint: Checkpoint, device: str | None, weights_only: bool) -> Download:
        """Plan the whole checkpoint, remapped to ``device``. Raises Conflict for a TorchScript archive, which
        torch.save cannot write, and for unsafe globals if ``weights_only``.
        """
        if checkpoint.format == TORCHSCRIPT:
            raise Conflict(
                f"{checkpoint.model}@{checkpoint.version} is a TorchScript program: download the uploaded file "
                "(original) and load it with torch.jit.load, or download only its weights (state_dict).",
                code="torchscript",
            )
        if weights_only and checkpoint.unsafe_globals:
            names = ", ".join(checkpoint.unsafe_globals[:10])
            raise Conflict(
                f"{checkpoint.model}@{checkpoint.version} contains objects that torch.load(weights_only=True) refuses: "
                f"{names}. If you trust its source, retry with weights_only=false; "
                f"its state_dicts do not need that.",
                code="unsafe-globals",
            )
        refuse_thinned(checkpoint, "the whole checkpoint")
        return self._planned(checkpoint, Wanted(device=device))

    def files(self, checkpoint: Checkpoint) -> list[StoredPath]:
        """List the files of a checkpoint: a folder's, or the one that it is downloaded as."""
        if checkpoint.format == FOLDER:
            return files_of(self.manifest(checkpoint))
        download = self._only_file(checkpoint)
        names = tuple(component.name for component in checkpoint.components)
        return [StoredPath(download.filename, download.size, checkpoint.digest, checkpoint.format, names)]

    def file_at(self, checkpoint: Checkpoint, path: str) -> Download:
        """Plan the download of one of ``files``, byte for byte as it was uploaded. Raises NotFound."""
        if checkpoint.format != FOLDER:
            download = self._only_file(checkpoint)
            if path != download.filename:
                raise NotFound(
                    f"{checkpoint.model}@{checkpoint.version} has one file, {download.filename!r}",
                    code="file-not-found",
                )
            return download
        stored = self.stored(checkpoint)
        file = file_at(stored.manifest, path)
        if checkpoint.thinned_at is not None and is_thinned(stored.manifest, file):
            refuse_thinned(checkpoint, f"the file {path!r}")
        digest = digest_of(stored.manifest, file)
        etag = _etag("path", checkpoint, path) if digest is None else _hashed(f"blob {digest}")
        download = self._download(checkpoint, stored, _Ready(plan_span(file.span), {}), etag, None)
        return replace(download, filename=path.rpartition("/")[2])

    def _only_file(self, checkpoint: Checkpoint) -> Download:
        return self.original(checkpoint) if checkpoint.original else self.file(checkpoint, None, weights_only=False)

    def state_dict(self, checkpoint: Checkpoint, query: StateDictQuery, *, apart: bool = False) -> Download:
        """Plan one component, ``apart`` as in Wanted. Raises SelectionError, and Gone for a thinned optimizer."""
        if checkpoint.thinned_at is not None:
            manifest = self.manifest(checkpoint)
            refuse_thinned_optimizer(checkpoint, manifest, choose_component(manifest, query.component))
        return self._planned(checkpoint, Wanted(query=query, apart=apart))

    def tensor(self, checkpoint: Checkpoint, query: TensorQuery) -> Download:
        """Plan one tensor, or a part of it. Raises SelectionError, and Gone for a thinned optimizer's."""
        if checkpoint.thinned_at is not None:
            manifest = self.manifest(checkpoint)
            refuse_thinned_optimizer(checkpoint, manifest, component_with_key(manifest, query.component, query.key))
        if query.dtype is not None:
            require_torch()
        return self._planned(checkpoint, Wanted(tensor=query))

    def warmstart(
        self,
        checkpoint: Checkpoint,
        target: Mapping[str, TargetTensor],
        query: StateDictQuery,
        *,
        resizes: bool = False,
        casts: bool = False,
    ) -> tuple[Report, str]:
        """Report ``load_state_dict(strict=False)`` in advance, with the digest of a plan that sends the matches.
        ``resizes`` and ``casts`` are those of ``match``.
        """
        _require_cast(query)
        if casts:
            require_torch()
        manifest = self.manifest(checkpoint)
        number = choose_component(manifest, query.component)
        if number is None or manifest.components[number].kind != "state_dict":
            raise SelectionError(
                "a warm start needs a state_dict, and this component is not one", code="not-a-state-dict"
            )
        tensors = [tensor for tensor in manifest.tensors if tensor.component == number and len(tensor.path) == 1]
        selected = select([tensor.key for tensor in tensors], query, current().is_given_up)
        report = match(((new, tensors[i]) for i, new in selected), target, resizes=resizes, casts=casts)
        wanted = Wanted(query=query, only=report.sent_keys, fitted=report.fitted)
        document = wanted.to_json()
        digest = hashlib.sha256(document.encode()).hexdigest()
        with self._catalog.write(checkpoint.model.namespace) as session:
            plans.keep(session, checkpoint.model.namespace, digest, document)
        return report, digest

    def planned(self, checkpoint: Checkpoint, plan_digest: str, keep: timedelta | None = None) -> Download:
        """Plan the download of an earlier ``warmstart``; keep its plan for ``keep`` more. Raises Gone if it expired."""
        namespace = checkpoint.model.namespace
        with self._catalog.read() as session:
            document = plans.find(session, namespace, plan_digest)
        if document is None:
            raise Gone("this plan has expired or never existed; request a new one from warmstart", code="plan-expired")
        if keep is not None:
            with self._catalog.write(namespace) as session:
                plans.keep(session, namespace, plan_digest, document, keep)
        return self._planned(checkpoint, Wanted.from_json(document), plan_digest)

    def layout(self, download: Download, *, derived: bool, client_verifies: bool = False) -> FileLayout:
        """The layout of a download. A client that verifies may get large storages from the store itself."""
        return self._presigned(layout_of(download, derived=derived), download, client_verifies)

    def layout_of_original(self, checkpoint: Checkpoint, *, client_verifies: bool = False) -> FileLayout:
        """The layout of ``original``."""
        download = self.original(checkpoint)
        return self._presigned(layout_of_original(download), download, client_verifies)

    def _presigned(self, layout: FileLayout, download: Download, client_verifies: bool) -> FileLayout:
        return presigned(layout, download, self._store) if self._presign and client_verifies else layout

    def stored(self, checkpoint: Checkpoint) -> StoredFile:
        """The stored file, with a reader of its own."""
        namespace = checkpoint.model.namespace
        reader = BlobReader(self._catalog, self._store, namespace, checkpoint.frame, self._aheads.new())

        def load() -> _Contents:
            manifest = decode(reader.manifest(checkpoint.manifest))
            return _Contents(manifest, BlobMap(manifest))

        contents = self._contents.get(f"{namespace} {checkpoint.manifest}", load)
        checksums = Checksums(self._catalog, namespace, reader, contents.blobs)
        return StoredFile(contents.manifest, contents.blobs, reader, checksums)

    def _planned(self, checkpoint: Checkpoint, wanted: Wanted, digest: str | None = None) -> Download:
        """Plan ``wanted``. A warm start's list of keys is long: its ``digest`` stands for its text."""
        _require_cast(wanted.query)
        name = digest or wanted.to_json()
        key = f"{checkpoint.model.namespace} {checkpoint.manifest} {name}"
        stored = self.stored(checkpoint)
        ready = self._plans.get(
            key, lambda: _ready(stored, self._drafts.get(key, lambda: _draft(checkpoint, stored, wanted)))
        )
        return self._download(checkpoint, stored, ready, _etag(ready.plan.rules, checkpoint, name), None)

    def _download(
        self, checkpoint: Checkpoint, stored: StoredFile, ready: _Ready, etag: str, sha256: str | None
    ) -> Download:
        return Download(
            size=ready.plan.file.size,
            etag=etag,
            filename=checkpoint.file_name(etag[:8], ready.plan.format, sha256),
            left_out=ready.plan.left_out,
            sha256=sha256,
            plan=ready.plan,
            stored=stored,
            crc32s=ready.crc32s,
            executor=self._executor,
        )


def _draft(checkpoint: Checkpoint, stored: StoredFile, wanted: Wanted) -> Plan:
    """Plan a file; its checksums are yet to be filled in."""
    skeleton = b"".join(stored.reader.bytes_of(stored.blobs, span) for span in stored.manifest.skeletons)
    planned = plan_here(stored.manifest, skeleton, wanted)
    if planned is not None:
        return planned
    return plan_in_child(stored.reader.whole(checkpoint.manifest), skeleton, wanted, current().is_given_up)


def _ready(stored: StoredFile, draft: Plan) -> _Ready:
    file, crc32s = stored.checksums.filled(draft.file)
    return _Ready(replace(draft, file=file), crc32s)


def _require_cast(query: StateDictQuery | None) -> None:
    """Raise SelectionError if a query asks for a dtype and there is no torch to cast with."""
    if query is not None and query.dtype is not None:
        require_torch()


def _etag(kind: str, checkpoint: Checkpoint, wanted: str) -> str:
    """ETag from the stored checkpoint and the request, so that all replicas agree."""
    return _hashed(json.dumps([WRITER_REVISION, kind, checkpoint.manifest, wanted]))


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
