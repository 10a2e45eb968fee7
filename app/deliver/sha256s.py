"""SHA-256s of uploaded files: computed once when a reader asks, and kept in the catalog."""

from contextlib import suppress
from dataclasses import replace

from ..catalog.catalog import Catalog
from ..catalog.checkpoints import keep_sha256
from ..concurrency.cancellation import expect
from ..concurrency.single_flight_cache import Cache
from ..errors import StorageFull
from ..values.checkpoint import Checkpoint
from .download import Download

CACHED = 1_000


class Sha256s:
    """Computes SHA-256s, each file's once for all who ask at the same time."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: Cache[str] = Cache(CACHED, lambda _: 1)

    def fill_in(self, checkpoint: Checkpoint, original: Download) -> Checkpoint:
        """Return the checkpoint with the SHA-256 of its uploaded file, the download ``original``. If it is unknown,
        read the whole file, and keep the SHA-256, unless the disk is full. Blocks.

        Raises StoreError, and Cancelled once nobody waits for it any more.
        """
        if checkpoint.sha256 is not None:
            return checkpoint
        namespace = checkpoint.model.namespace

        def make() -> str:
            expect(original.size)
            return original.hash()

        sha256 = self._known.get(f"{namespace} {checkpoint.manifest}", make)
        with suppress(StorageFull), self._catalog.write(namespace) as session:
            keep_sha256(session, checkpoint.id, sha256)
        return replace(checkpoint, sha256=sha256)
