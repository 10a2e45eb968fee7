"""Map from positions in the uploaded file to bytes of blobs.

A file is its blob-sized storages, in order, and its frame: all bytes between the storages, one after another. Beyond
its end are the assembled storages: those whose chunks are in order are stretches of blobs, too. Any other is *made*: it
is read like a blob, and a block of it is put together from its chunks.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from ..values.digest import Digest
from ..values.frame import frame_spans
from ..values.manifest import Assembled, Chunk, Manifest
from ..values.span import Span
from .made import Made, MadeChunk, made_of


@dataclass(frozen=True, slots=True)
class BlobSpan:
    """Bytes ``span`` of a blob that has ``length`` bytes; with ``made``, of a storage that is put together."""

    digest: Digest
    span: Span
    length: int
    made: Made | None = None

    @property
    def held_in(self) -> Digest:
        """A blob that has some of the bytes."""
        return self.digest if self.made is None else self.made.chunks[0].digest


class BlobMap:
    """Table that finds each byte of an uploaded file: its segments are stretches of one blob each."""

    def __init__(self, manifest: Manifest) -> None:
        if manifest.frame is None:
            raise ValueError("a manifest that was never committed has no frame")
        segments: list[tuple[Span, Digest, int, int]] = [
            (storage.span, storage.digest, 0, storage.span.length)
            for storage in manifest.storages
            if storage.digest is not None
        ]
        frame = frame_spans(manifest.size, manifest.storages)
        in_frame, frame_length = 0, sum(span.length for span in frame)
        for span in frame:
            segments.append((span, manifest.frame, in_frame, frame_length))
            in_frame += span.length
        segments.sort(key=lambda segment: segment[0])
        self._starts = [span.start for span, _, _, _ in segments]
        self._digests = [digest for _, digest, _, _ in segments]
        self._offsets = [offset for _, _, offset, _ in segments]
        self._lengths = [length for _, _, _, length in segments]
        """Blob lengths by the manifest: the reader of a blob compares them."""
        self._end = manifest.size
        self._made: dict[Digest, Made] = {}
        for each in manifest.assembled:
            self._add(each, [self._place(manifest, each, chunk) for chunk in each.chunks])

    def is_made(self, span: Span) -> bool:
        """Tell whether bytes, which are of one storage, have to be put together."""
        return bool(self._made) and span.start < span.end and next(self.resolve(span)).made is not None

    def _place(self, manifest: Manifest, whole: Assembled, chunk: Chunk) -> BlobSpan:
        """Return the bytes that a chunk reaches in the blob of its storage, from its first element on."""
        storage, itemsize = manifest.storages[chunk.storage].span, whole.dtype.itemsize
        start = storage.start + chunk.offset * itemsize
        reach = sum((size - 1) * step for size, step in zip(chunk.sizes, chunk.stride, strict=True))
        (place,) = self.resolve(Span(start, start + (reach + 1) * itemsize))
        return place

    def _add(self, whole: Assembled, places: list[BlobSpan]) -> None:
        """Add the segments of an assembled storage."""
        length = whole.storage.span.length
        if whole.is_in_order:
            segments = [(each.digest, each.span, each.length) for each in places]
        else:
            chunks = [
                MadeChunk(chunk.offsets, chunk.sizes, chunk.stride, place.digest, place.span, place.length)
                for chunk, place in zip(whole.chunks, places, strict=True)
            ]
            made = made_of(whole.dtype, whole.shape, chunks)
            self._made[made.name] = made
            segments = [(made.name, Span(0, length), length)]
        for digest, span, blob_length in segments:
            self._starts.append(self._end)
            self._digests.append(digest)
            self._offsets.append(span.start)
            self._lengths.append(blob_length)
            self._end += span.length

    def resolve(self, span: Span) -> Iterator[BlobSpan]:
        """Yield the blob spans that make up ``span`` of the file, in order."""
        position = span.start
        i = bisect_right(self._starts, position) - 1
        while position < span.end:
            segment_end = self._starts[i + 1] if i + 1 < len(self._starts) else self._end
            end = min(segment_end, span.end)
            start = self._offsets[i] + position - self._starts[i]
            digest = self._digests[i]
            yield BlobSpan(digest, Span(start, start + end - position), self._lengths[i], self._made.get(digest))
            position = end
            i += 1
