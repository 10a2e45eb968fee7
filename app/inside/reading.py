"""Reading of tensors' elements: many small ones at once, large ones in messages for a child process."""

from collections.abc import Collection, Iterator, Mapping

from ..concurrency.cancellation import check
from ..deliver.convert import convert
from ..deliver.stored_file import StoredFile
from ..deliver.windows import Strip
from ..store.digests import digest_of
from ..values.conversion import Conversion
from ..values.digest import Digest
from ..values.manifest import MIN_BLOB_SIZE
from ..values.span import Span
from .views import messages_of

MAX_RUN = 1024 * 1024
"""Bytes of the frame that are read at once."""


SMALL = 64 * 1024
"""Most bytes of elements that are held in memory for each tensor."""


def is_small(stored: StoredFile, elements: Conversion) -> bool:
    """Tell whether the elements are few, and lie in the frame."""
    if elements.size > SMALL or elements.source.length > MIN_BLOB_SIZE:
        return False
    return all(blob.digest == stored.manifest.frame for blob in stored.blobs.resolve(elements.source))


def small_elements(stored: StoredFile, wanted: Collection[Conversion]) -> Mapping[Conversion, bytes]:
    """Read the elements of tensors whose storages lie in the frame.

    Neighbours are read together. A gap of MIN_BLOB_SIZE bytes never holds a blob.
    """
    found: dict[Conversion, bytes] = {}
    run: list[Conversion] = []
    for elements in sorted(wanted, key=lambda each: each.source):
        if run and not (
            elements.source.start - run[-1].source.end <= MIN_BLOB_SIZE
            and elements.source.end - run[0].source.start <= MAX_RUN
        ):
            found.update(_read_run(stored, run))
            run = []
        run.append(elements)
    if run:
        found.update(_read_run(stored, run))
    return found


def _read_run(stored: StoredFile, run: list[Conversion]) -> Iterator[tuple[Conversion, bytes]]:
    check()
    start = run[0].source.start
    data = memoryview(stored.reader.bytes_of(stored.blobs, Span(start, max(each.source.end for each in run))))
    for elements in run:
        held = data[elements.source.start - start : elements.source.end - start]
        if elements.changes_nothing:
            yield elements, bytes(held)
        else:
            strip = Strip(elements, 0, elements.count, Span(0, elements.size), ())
            yield elements, bytes(convert(strip, [(0, held)]))


def messages(stored: StoredFile, elements: Conversion) -> Iterator[memoryview]:
    """Yield the elements of a tensor, verified, in messages of equally many elements."""
    return messages_of(stored.reader.converted(stored.blobs, elements), elements.to.itemsize)


def content_of(stored: StoredFile, elements: Conversion) -> Digest:
    """The digest of the elements of a large view, all of which are read."""
    digest, _ = stored.reader.digest_of(stored.blobs, elements)
    return digest


def content_of_small(data: bytes) -> Digest:
    digest, _ = digest_of(data)
    return digest
