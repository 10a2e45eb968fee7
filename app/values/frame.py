"""The frame: the bytes of an uploaded file outside its blob-sized storages."""

from collections.abc import Iterable, Iterator

from .digest import Digest
from .manifest import MIN_BLOB_SIZE, Manifest, Storage
from .span import Span


def frame_spans(size: int, storages: Iterable[Storage]) -> tuple[Span, ...]:
    """Spans of a file of ``size`` bytes outside its blob-sized storages, in order. Joined, the spans are the frame."""
    spans, end = [], 0
    for blob in sorted(storage.span for storage in storages if storage.span.length > MIN_BLOB_SIZE):
        if end < blob.start:
            spans.append(Span(end, blob.start))
        end = max(end, blob.end)
    if end < size:
        spans.append(Span(end, size))
    return tuple(spans)


def blobs_of(manifest: Manifest) -> Iterator[tuple[Digest, int]]:
    """Yield the digest and the expected length, in bytes, of each blob of a committed file, the frame first. Equal
    storages come once each.
    """
    if manifest.frame is not None:
        yield manifest.frame, sum(span.length for span in frame_spans(manifest.size, manifest.storages))
    for storage in manifest.storages:
        if storage.digest is not None:
            yield storage.digest, storage.span.length
