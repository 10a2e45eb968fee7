"""Reading blobs: find their packs, read neighbouring blocks together, verify every block before a byte of it leaves."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..catalog import blobs
from ..catalog.catalog import Catalog
from ..errors import DamagedBlob, PackMissing
from ..store.digests import Hasher, crc32, verify_block
from ..store.pack_store import PackStore
from ..values.checkpoint import Blob
from ..values.digest import BLOCK_SIZE, Digest
from ..values.span import Span
from .spans import BlobMap, BlobSpan
from .windows import Block, BlockPart, Window, blocks_in, blocks_of

MAX_GAP = 64 * 1024
"""Bytes read and thrown away rather than read twice."""

MAX_RUN = 2 * BLOCK_SIZE

SMALL = 64 * 1024
"""Bytes below which a piece is joined with its neighbours: a send costs more than a copy of this much."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A block and where it lies."""

    block: Block
    blob: Blob
    span: Span


class BlobReader:
    """Reads a namespace's blobs. Not for use by two threads at once.

    ``frame`` is the blob that small pieces come from, if there is one: its last block is kept at hand.

    Raises DamagedBlob where bytes do not match their digest or a blob is not in the catalog, StoreError where the
    store fails.
    """

    def __init__(self, catalog: Catalog, store: PackStore, namespace: str, frame: Digest | None = None) -> None:
        self._frame = frame
        self._catalog = catalog
        self._store = store
        self._namespace = namespace
        self._blobs: dict[Digest, Blob] = {}
        self._kept: dict[Block, memoryview] = {}

    def locate(self, digests: Iterable[Digest]) -> None:
        """Look up many blobs in one statement."""
        wanted = [digest for digest in digests if digest not in self._blobs]
        if wanted:
            with self._catalog.read() as session:
                self._blobs |= blobs.known(session, self._namespace, wanted)

    def blob(self, digest: Digest) -> Blob:
        self.locate((digest,))
        try:
            return self._blobs[digest]
        except KeyError:
            raise DamagedBlob(f"the store no longer holds {digest}") from None

    def whole(self, digest: Digest) -> bytes:
        """All bytes of a blob."""
        blob = self.blob(digest)
        span = BlobSpan(digest, Span(0, blob.length), blob.length)
        return b"".join(self._views(blocks_in(span)))

    def bytes_of(self, file: BlobMap, span: Span) -> bytes:
        """Bytes ``span`` of the uploaded file."""
        return b"".join(self._views(blocks_of(file, span)))

    def crc32_of(self, file: BlobMap, span: Span) -> int:
        """The CRC32 of bytes ``span`` of the uploaded file."""
        checksum = 0
        for view in self._views(blocks_of(file, span)):
            checksum = crc32(view, checksum)
        return checksum

    def digest_of(self, file: BlobMap, span: Span) -> tuple[Digest, bytes]:
        """The digest of bytes ``span`` of the uploaded file, and its raw block digests, concatenated."""
        hasher = Hasher()
        for view in self._views(blocks_of(file, span)):
            hasher.update(view)
        return hasher.digest, hasher.blocks

    def _views(self, parts: Iterable[BlockPart]) -> Iterator[memoryview]:
        for part in parts:
            yield self._read([part.block])[part.block][part.span.start : part.span.end]

    def load(self, window: Window) -> list[memoryview]:
        """A window's bytes in order, verified, in pieces that are worth a send each."""
        blocks = self._read(list(window.blocks))
        return _joined(
            blocks[part.block][part.span.start : part.span.end] if isinstance(part, BlockPart) else part
            for part in window.parts
        )

    def _read(self, blocks: Sequence[Block]) -> dict[Block, memoryview]:
        """Verified blocks, those at hand among them."""
        self.locate({block.digest for block in blocks})
        missing = [block for block in blocks if block not in self._kept]
        while True:
            try:
                fresh = self._read_fresh(missing)
                break
            except PackMissing:
                if not self._have_moved({block.digest for block in missing}):
                    raise
        found = {block: fresh[block] if block in fresh else self._kept[block] for block in blocks}
        again = [block for block in blocks if block.digest == self._frame][-1:] + list(blocks[-1:])
        self._kept = {block: found[block] for block in again}
        return found

    def _have_moved(self, digests: Collection[Digest]) -> bool:
        """Look ``digests`` up once more; whether any lies elsewhere now, in a pack that was made of others."""
        before = [self._blobs.pop(digest, None) for digest in digests]
        self.locate(digests)
        return before != [self._blobs.get(digest) for digest in digests]

    def _read_fresh(self, blocks: Sequence[Block]) -> dict[Block, memoryview]:
        found: dict[Block, memoryview] = {}
        for run in _runs(self._stored(block) for block in blocks):
            start = run[0].span.start
            data = self._store.read(run[0].blob.pack, Span(start, run[-1].span.end))
            for stored in run:
                view = data[stored.span.start - start : stored.span.end - start]
                verify_block(view, stored.blob.blocks, stored.block.index)
                found[stored.block] = view
        return found

    def _stored(self, block: Block) -> _Stored:
        blob = self.blob(block.digest)
        start = blob.offset + block.index * BLOCK_SIZE
        return _Stored(block, blob, Span(start, start + block.length))


def _runs(blocks: Iterable[_Stored]) -> Iterator[list[_Stored]]:
    """Blocks that lie close to each other in one pack, to be read in one go."""
    run: list[_Stored] = []
    for stored in sorted(blocks, key=lambda stored: (stored.blob.pack, stored.span.start)):
        if run and not (
            stored.blob.pack == run[-1].blob.pack
            and stored.span.start - run[-1].span.end <= MAX_GAP
            and stored.span.end - run[0].span.start <= MAX_RUN
        ):
            yield run
            run = []
        run.append(stored)
    if run:
        yield run


def _joined(views: Iterable[memoryview]) -> list[memoryview]:
    """The same bytes, with runs of small pieces copied into one each."""
    pieces: list[memoryview] = []
    small: list[memoryview] = []
    for view in views:
        if len(view) < SMALL:
            small.append(view)
            continue
        if small:
            pieces.append(memoryview(b"".join(small)))
            small = []
        pieces.append(view)
    if small:
        pieces.append(memoryview(b"".join(small)))
    return pieces
