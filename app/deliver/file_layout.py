"""The layout of a download, with which a client fetches parallel ranges straight into place and verifies them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from ..concurrency.cancellation import expect
from ..store.digests import Hasher
from ..store.pack_store import PackStore, PresignedSpan
from ..values.conversion import Conversion
from ..values.digest import BLOCK_DIGEST_SIZE, Digest
from ..values.span import Span
from ..values.virtual_file import ChecksumOf
from .download import Download
from .plan import Plan


@dataclass(frozen=True, slots=True)
class PlacedStorage:
    """A storage of a download, or its pickle. ``span`` is its place in the download, ``blocks`` are its block digests
    in hex.

    A digest that was not asked for is None, and its ``blocks`` are empty. ``is_plain`` is PlannedStorage's. ``at`` are
    parts of objects that have its bytes, to be fetched from the store itself.
    """

    span: Span
    digest: Digest | None
    blocks: tuple[str, ...]
    is_plain: bool
    at: Sequence[PresignedSpan] = ()


@dataclass(frozen=True, slots=True)
class FileLayout:
    """The layout of a download. ``rest`` is the digest of all bytes between the storages, one after another; None while
    the CRC32 of a conversion among them is unknown. ``pickle`` is a torch file's, and ``byteorder`` that of its
    storages. ``left_out`` is Download's.
    """

    size: int
    etag: str
    rest: Digest | None
    pickle: PlacedStorage | None
    storages: tuple[PlacedStorage, ...]
    left_out: tuple[str, ...]
    byteorder: str


def layout_of(download: Download, *, derived: bool) -> FileLayout:
    """Return the place and digest of each storage in a download. A part or conversion of a storage has a digest only if
    ``derived``, because its bytes have to be made first.
    """
    reader, planned = download.stored.reader, download.plan
    digests: dict[Span | Conversion, Digest | None] = {
        storage.span: storage.digest for storage in download.stored.manifest.storages
    }
    reader.locate(digest for each in planned.storages if (digest := digests.get(each.source)) is not None)
    expect(sum(_size(each.source) for each in planned.storages if derived and digests.get(each.source) is None))
    storages = []
    for storage in planned.storages:
        digest, blocks = digests.get(storage.source), b""
        if digest is not None:
            blocks = reader.blob(digest, storage.span.length).blocks
        elif derived or storage.source in digests:  # too small to be a blob
            digest, blocks = reader.digest_of(download.stored.blobs, storage.source)
        storages.append(PlacedStorage(storage.span, digest, _hex_digests(blocks), storage.is_plain))
    return FileLayout(
        download.size,
        download.etag,
        _rest(planned, download.crc32s),
        _pickle(planned),
        tuple(storages),
        download.left_out,
        planned.byteorder,
    )


def layout_of_original(download: Download) -> FileLayout:
    """Return the place of each blob in the uploaded file; the rest of the file is its frame."""
    reader, manifest = download.stored.reader, download.stored.manifest
    kept = [(storage.span, storage.digest) for storage in manifest.storages if storage.digest is not None]
    reader.locate(digest for _, digest in kept)
    storages = tuple(
        PlacedStorage(span, digest, _hex_digests(reader.blob(digest, span.length).blocks), is_plain=False)
        for span, digest in sorted(kept)
    )
    return FileLayout(download.size, download.etag, manifest.frame, None, storages, (), manifest.byteorder)


LIFETIME = timedelta(minutes=15)
"""Time for which a client may fetch storages from the store itself."""

SMALLEST_DIRECT = 256 * 1024
"""Smallest storage that is worth a request to the store, in bytes."""


def presigned(layout: FileLayout, download: Download, store: PackStore) -> FileLayout:
    """Return ``layout`` with the places of its large storages in the store, where they lie there as they are."""
    kept = {storage.digest: storage.span.length for storage in download.stored.manifest.storages}
    by_pack: defaultdict[str, list[tuple[int, Span]]] = defaultdict(list)
    for number, each in enumerate(layout.storages):
        is_kept = each.digest is not None and kept.get(each.digest) == each.span.length
        if each.digest is not None and is_kept and each.span.length >= SMALLEST_DIRECT:
            blob = download.stored.reader.blob(each.digest, each.span.length)
            by_pack[blob.pack].append((number, Span(blob.offset, blob.offset + blob.length)))
    storages = list(layout.storages)
    for pack, wanted in by_pack.items():
        places = store.presigned(pack, [span for _, span in wanted], LIFETIME)
        for (number, _), at in zip(wanted, places, strict=True):
            storages[number] = replace(storages[number], at=at)
    return replace(layout, storages=tuple(storages))


def _size(source: Span | Conversion) -> int:
    return source.length if isinstance(source, Span) else source.size


def _pickle(planned: Plan) -> PlacedStorage | None:
    if planned.pickle is None:
        return None
    hasher = Hasher()
    for piece in planned.file.pieces(planned.pickle.start, planned.pickle.end):
        if isinstance(piece, memoryview):
            hasher.update(piece)
    return PlacedStorage(planned.pickle, hasher.digest, _hex_digests(hasher.blocks), is_plain=False)


def _rest(planned: Plan, crc32s: Mapping[Conversion, int]) -> Digest | None:
    hasher = Hasher()
    for piece in planned.file.pieces():
        if isinstance(piece, memoryview):
            hasher.update(piece)
        elif isinstance(piece, ChecksumOf):
            if piece.conversion not in crc32s:
                return None
            hasher.update(piece.of(crc32s[piece.conversion]))
    return hasher.digest


def _hex_digests(blocks: bytes) -> tuple[str, ...]:
    return tuple(blocks[i : i + BLOCK_DIGEST_SIZE].hex() for i in range(0, len(blocks), BLOCK_DIGEST_SIZE))
