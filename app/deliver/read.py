"""Reading of blobs: find their packs, read neighbouring blocks together, verify every block before it is sent."""

from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from ..catalog import blobs
from ..catalog.catalog import Catalog
from ..concurrency.cancellation import check
from ..damage import look_again
from ..errors import DamagedBlob, PackMissing, StoreError
from ..store.digests import Hasher, crc32, verify_block
from ..store.pack_store import PackStore
from ..store.verified import block_span, check_blob
from ..values.checkpoint import Blob
from ..values.conversion import Conversion
from ..values.digest import Digest
from ..values.span import Span
from ..values.virtual_file import ChecksumOf
from .assemble import Assembler
from .convert import convert
from .followed import Followed
from .pieces import joined
from .read_ahead import ReadAhead
from .runs import ENOUGH_AHEAD, StoredBlock, runs_of
from .spans import BlobMap, BlobSpan
from .windows import Block, BlockSpan, Strip, Window, blocks_in, blocks_of, strips_of

SMALL_FRAME = 1024 * 1024
"""Largest frame that is read with its manifest, and largest such manifest, in bytes."""


class BlobReader:
    """Reader of a namespace's blobs. Not for use by two threads at once.

    ``frame`` is the blob that small pieces come from, if there is one: its last block read is kept, a small one for
    good.

    Raises DamagedBlob if bytes do not match their digest or a blob is not in the catalog, StoreError if the store
    fails, Cancelled if nobody waits for the bytes any more.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: PackStore,
        namespace: str,
        frame: Digest | None = None,
        ahead: ReadAhead | None = None,
    ) -> None:
        self._frame = frame
        self._ahead = ahead
        self._catalog = catalog
        self._store = store
        self._namespace = namespace
        self._blobs: dict[Digest, Blob] = {}
        self._kept: dict[Block, memoryview] = {}
        self._assembler = Assembler(self._read_stored)

    def locate(self, digests: Iterable[Digest]) -> None:
        """Look up many blobs in one statement."""
        wanted = [digest for digest in digests if digest not in self._blobs]
        if wanted:
            with self._catalog.read() as session:
                self._blobs |= blobs.known(session, self._namespace, wanted)

    def blob(self, digest: Digest, length: int | None = None) -> Blob:
        """Look up a blob. Raises DamagedBlob also if its length is not the manifest's ``length``."""
        self.locate((digest,))
        try:
            blob = self._blobs[digest]
        except KeyError:
            raise DamagedBlob(f"the blob {digest} is no longer in the store") from None
        check_blob(blob, length)
        return blob

    def whole(self, digest: Digest) -> bytes:
        """All bytes of a blob."""
        blob = self.blob(digest)
        span = BlobSpan(digest, Span(0, blob.length), blob.length)
        return b"".join(self._views(blocks_in(span)))

    def manifest(self, digest: Digest) -> bytes:
        """All bytes of the manifest ``digest``. From a store that is far away, a small frame comes with it, in the same
        round of requests: whatever is downloaded begins with bytes of the frame, or is planned from them.
        """
        if self._ahead is not None and self._frame is not None:
            self.locate((self._frame, digest))
            found = [self._blobs[each] for each in (self._frame, digest) if each in self._blobs]
            if all(0 < blob.length <= SMALL_FRAME for blob in found):
                blocks = [Block(blob.digest, 0, blob.length) for blob in found]
                self._ask(blocks, ahead=False)
                with suppress(StoreError):  # of the frame, perhaps, which not everybody needs
                    self._read(blocks)
                self._ahead.forget()
        return self.whole(digest)

    def bytes_of(self, file: BlobMap, span: Span) -> bytes:
        """Bytes ``span`` of the uploaded file."""
        return b"".join(self._views(blocks_of(file, span)))

    def crc32_of(self, file: BlobMap, span: Span) -> int:
        """The CRC32 of bytes ``span`` of the uploaded file."""
        return _crc32(self._views(blocks_of(file, span)))

    def converted(self, file: BlobMap, conversion: Conversion, part: Span | None = None) -> Iterator[memoryview]:
        """Yield a conversion's output, or bytes ``part`` of it, a strip at a time."""
        for strip in strips_of(file, conversion, part or Span(0, conversion.size)):
            check()
            yield convert(strip, self._one_by_one(strip))

    def forget(self) -> None:
        """Let go of the blocks that were read last, to free their memory."""
        self._kept = {}

    def digest_of(self, file: BlobMap, what: Span | Conversion) -> tuple[Digest, bytes]:
        """Digest of bytes of the uploaded file, or of a conversion's output; and its raw block digests, joined."""
        hasher = Hasher()
        for view in self._views(blocks_of(file, what)) if isinstance(what, Span) else self.converted(file, what):
            hasher.update(view)
        return hasher.digest, hasher.blocks

    def _views(self, parts: Iterable[BlockSpan]) -> Iterator[memoryview]:
        for part in parts:
            check()
            yield self._read([part.block])[part.block][part.span.start : part.span.end]

    def _one_by_one(self, strip: Strip) -> Iterator[tuple[int, memoryview]]:
        views = self._views(part for _, part in strip.sources)
        return ((position, view) for (position, _), view in zip(strip.sources, views, strict=True))

    @property
    def at_hand(self) -> frozenset[Block]:
        """The blocks that were read and are kept."""
        return frozenset(self._kept)

    def looking_ahead(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Yield ``windows``, and begin to read what the next ones need, if the store is worth it. What the first one
        to be read needs is read side by side, and nothing else meanwhile: its bytes are waited for.
        """
        if self._ahead is None:
            yield from windows
            return
        coming = deque[Window]()
        try:
            first = list(islice(windows, 1))
            if first and self.at_hand.issuperset(first[0].blocks):
                first += islice(windows, 1)
            for each in first:
                self._ask(each.blocks, ahead=False)
            yield from first
            while True:
                while len(coming) <= self._ahead.windows and (window := next(windows, None)) is not None:
                    coming.append(window)
                    if not self._ask(window.blocks):
                        break
                if not coming:
                    return
                yield coming.popleft()
        finally:
            self._ahead.forget()

    def _ask(self, blocks: Iterable[Block], *, ahead: bool = True) -> bool:
        """Begin to read blocks that are not at hand; False if no more can be read ahead now."""
        if self._ahead is None:
            return False
        blocks = [block for block in blocks if block.made is None]
        self.locate({block.digest for block in blocks})
        try:
            stored = [self._stored(block) for block in blocks if block not in self._kept]
        except DamagedBlob:  # whoever needs it is told
            return False
        wanted = [each for each in stored if not self._ahead.has(each.blob.pack, each.span)]
        runs = runs_of(wanted, ENOUGH_AHEAD) if ahead else runs_of(wanted)
        return all(self._ahead.ask(run[0].blob.pack, [each.span for each in run], ahead=ahead) for run in runs)

    def load(
        self, window: Window, checksums: Followed | None = None, *, whole_as_they_are: bool = False
    ) -> Generator[None, None, list[memoryview]]:
        """Return a window's bytes in order, verified, in pieces large enough to send. Yields now and then while a
        checksum is computed, which may take minutes.

        ``whole_as_they_are``: the receiver verifies blocks that are sent whole and unchanged.
        """
        unverified = window.whole_blocks() if whole_as_they_are else frozenset()
        blocks = self._read(list(window.blocks), unverified)
        views = []
        for part in window.parts:
            if isinstance(part, ChecksumOf):
                if checksums is None:
                    raise TypeError("a window with checksums cannot be loaded without them")
                yield from checksums.find_out(part.conversion)
                views.append(part.of(checksums.of(part.conversion)))
            else:
                views.append(self._bytes_of(part, blocks, checksums))
        return joined(views)

    def _bytes_of(
        self, part: BlockSpan | memoryview | Strip, blocks: Mapping[Block, memoryview], checksums: Followed | None
    ) -> memoryview:
        if isinstance(part, BlockSpan):
            return _part_of(part, blocks)
        if isinstance(part, memoryview):
            return part
        at_hand = ((position, _part_of(source, blocks)) for position, source in part.sources)
        data = convert(part, self._one_by_one(part) if part.is_wide else at_hand)
        if checksums is not None:
            checksums.follow(part, data)
        return data

    def _read(self, blocks: Sequence[Block], unverified: frozenset[Block] = frozenset()) -> dict[Block, memoryview]:
        """Return blocks, put together from others if they have to be, verified except stored ones of ``unverified``."""
        found = self._read_stored([block for block in blocks if block.made is None], unverified)
        return found | {block: self._assembler.block(block, block.made) for block in blocks if block.made is not None}

    def _read_stored(
        self, blocks: Sequence[Block], unverified: frozenset[Block] = frozenset()
    ) -> dict[Block, memoryview]:
        """Return blocks of blobs, kept or newly read, verified except ``unverified``."""
        self.locate({block.digest for block in blocks})
        missing = [block for block in blocks if block not in self._kept]
        was_wrong = False
        while True:
            try:
                fresh = self._read_fresh(missing, unverified)
                break
            except (PackMissing, DamagedBlob):
                if self._have_moved({block.digest for block in missing}):
                    continue
                if was_wrong:  # twice, so it was no accident on the way from the store
                    self._mark_damage(missing)
                    raise
                was_wrong = True
        found = {block: fresh[block] if block in fresh else self._kept[block] for block in blocks}
        small_frame = [block for block in self._kept if block.digest == self._frame and block.length <= SMALL_FRAME]
        again = [*small_frame, *(block for block in blocks if block.digest == self._frame)][-1:] + list(blocks[-1:])
        self._kept = {block: (found | self._kept)[block] for block in again if block not in unverified}
        return found

    def _have_moved(self, digests: Collection[Digest]) -> bool:
        """Look ``digests`` up again. Return whether any is in another pack now, after a compaction or upload."""
        before = [self._blobs.pop(digest, None) for digest in digests]
        self.locate(digests)
        return before != [self._blobs.get(digest) for digest in digests]

    def _mark_damage(self, blocks: Iterable[Block]) -> None:
        """Mark the damaged and lost ones among ``blocks``."""
        suspects: dict[Digest, tuple[Blob, set[int]]] = {}
        for block in blocks:
            if (blob := self._blobs.get(block.digest)) is not None:
                suspects.setdefault(block.digest, (blob, set()))[1].add(block.index)
        look_again(self._catalog, self._store, self._namespace, suspects.values())

    def _read_fresh(self, blocks: Sequence[Block], unverified: frozenset[Block]) -> dict[Block, memoryview]:
        found: dict[Block, memoryview] = {}

        def keep(stored: StoredBlock, view: memoryview) -> None:
            if stored.block not in unverified:
                verify_block(view, stored.blob.blocks, stored.block.index)
            found[stored.block] = view

        rest = []
        for stored in map(self._stored, blocks):
            view = None if self._ahead is None else self._ahead.take(stored.blob.pack, stored.span)
            if view is None:
                rest.append(stored)
            else:
                keep(stored, view)
        for run in runs_of(rest):
            start = run[0].span.start
            data = self._store.read(run[0].blob.pack, Span(start, run[-1].span.end))
            for stored in run:
                keep(stored, data[stored.span.start - start : stored.span.end - start])
        return found

    def _stored(self, block: Block) -> StoredBlock:
        blob = self.blob(block.digest)
        span = block_span(blob, block.index)
        if span.length != block.length:
            raise DamagedBlob(
                f"block {block.index} of {block.digest} has {span.length:,} bytes in the catalog, but {block.length:,} "
                "in the manifest"
            )
        return StoredBlock(block, blob, span)


def _part_of(part: BlockSpan, blocks: Mapping[Block, memoryview]) -> memoryview:
    return blocks[part.block][part.span.start : part.span.end]


def _crc32(views: Iterable[memoryview]) -> int:
    checksum = 0
    for view in views:
        checksum = crc32(view, checksum)
    return checksum
