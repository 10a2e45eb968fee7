"""Map from positions in the uploaded file to bytes of blobs.

A file is its blob-sized storages, in order, and its frame: all bytes between the storages, one after another.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from ..values.digest import Digest
from ..values.frame import frame_spans
from ..values.manifest import Manifest
from ..values.span import Span


@dataclass(frozen=True, slots=True)
class BlobSpan:
    """Bytes ``span`` of a blob that has ``length`` bytes."""

    digest: Digest
    span: Span
    length: int


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
        self._size = manifest.size

    def resolve(self, span: Span) -> Iterator[BlobSpan]:
        """Yield the blob spans that make up ``span`` of the file, in order."""
        position = span.start
        i = bisect_right(self._starts, position) - 1
        while position < span.end:
            segment_end = self._starts[i + 1] if i + 1 < len(self._starts) else self._size
            end = min(segment_end, span.end)
            start = self._offsets[i] + position - self._starts[i]
            yield BlobSpan(self._digests[i], Span(start, start + end - position), self._lengths[i])
            position = end
            i += 1
