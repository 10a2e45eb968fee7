"""Reads of blobs for a virtual file: nothing missing, nothing twice, every window bounded."""

from hypothesis import given
from hypothesis import strategies as st

from app.deliver import windows as windows_module
from app.deliver.spans import BlobMap
from app.deliver.windows import Block, BlockSpan, cut_windows
from app.values.digest import BLOCK_SIZE, Digest
from app.values.dtype import DTYPES
from app.values.manifest import MIN_BLOB_SIZE, Manifest, Storage
from app.values.span import Span
from app.values.virtual_file import VirtualFile


def manifest_of(gaps_and_sizes: list[tuple[int, int]], tail: int = 50) -> Manifest:
    """A file of storages with these many bytes of frame before each."""
    storages, position = [], 0
    for i, (gap, size) in enumerate(gaps_and_sizes):
        span = Span(position + gap, position + gap + size)
        digest = Digest(f"blake3:{i}") if size > MIN_BLOB_SIZE else None
        storages.append(Storage(str(i), "cpu", DTYPES["uint8"], span, digest=digest))
        position = span.end
    return Manifest("torch_zip", position + tail, Span(0, 0), tuple(storages), (), (), frame=Digest("blake3:frame"))


layouts = st.lists(st.tuples(st.integers(0, 90), st.sampled_from([0, 10, 4096, 4097, 9000])), max_size=6)


@given(layouts, st.integers(0, 60_000), st.integers(0, 60_000))
def test_every_byte_of_the_upload_is_found_in_its_blob(layout, a, b):
    manifest = manifest_of(layout)
    blobs = BlobMap(manifest)
    start, end = sorted((min(a, manifest.size), min(b, manifest.size)))
    found = [
        (part.digest, i) for part in blobs.resolve(Span(start, end)) for i in range(part.span.start, part.span.end)
    ]
    expected, in_frame = [], 0
    for position in range(manifest.size):
        owner = next((s for s in manifest.storages if s.digest and s.span.start <= position < s.span.end), None)
        if owner is None:
            expected.append((manifest.frame, in_frame))
            in_frame += 1
        else:
            expected.append((owner.digest, position - owner.span.start))
    assert found == expected[start:end]


def test_windows_cover_a_large_file_in_order_and_stay_small():
    manifest = manifest_of([(64, 3 * BLOCK_SIZE + 5), (0, 100), (7, 2 * BLOCK_SIZE)])
    file = VirtualFile()
    file.add_literal(b"header")
    file.add_span(Span(0, manifest.size))
    cut = list(cut_windows(file, BlobMap(manifest), 0, file.size))
    assert sum(window.size for window in cut) == file.size
    assert max(window.size for window in cut) <= windows_module.WINDOW_SIZE
    assert len(cut) <= 7
    for window in cut:
        for part in window.parts:
            if isinstance(part, BlockSpan):
                assert 0 <= part.span.start < part.span.end <= BLOCK_SIZE


def test_the_first_window_of_a_large_file_is_what_is_at_hand():
    manifest = manifest_of([(64, 3 * BLOCK_SIZE), (7, 5000)])
    frame = Block(manifest.frame, 0, 64 + 7 + 50)
    file = VirtualFile()
    file.add_literal(b"header")
    file.add_span(Span(0, manifest.size))
    first, *others = cut_windows(file, BlobMap(manifest), 0, file.size, {frame})
    assert (first.size, list(first.blocks)) == (6 + 64, [frame])
    assert first.size + sum(window.size for window in others) == file.size
    assert len(others) == len(list(cut_windows(file, BlobMap(manifest), 6 + 64, file.size)))


def test_a_file_of_one_window_stays_whole_whatever_is_at_hand():
    manifest = manifest_of([(64, 9000)])
    file = VirtualFile()
    file.add_span(Span(0, manifest.size))
    (window,) = cut_windows(file, BlobMap(manifest), 0, file.size, {Block(manifest.frame, 0, 114)})
    assert window.size == file.size


def test_a_range_that_begins_with_other_bytes_is_cut_as_ever():
    manifest = manifest_of([(64, 3 * BLOCK_SIZE), (64, 5000)])
    file = VirtualFile()
    file.add_span(Span(0, manifest.size))
    frame = Block(manifest.frame, 0, 64 + 64 + 50)
    cut = [window.parts for window in cut_windows(file, BlobMap(manifest), 64, file.size, {frame})]
    assert cut == [window.parts for window in cut_windows(file, BlobMap(manifest), 64, file.size)]


def test_a_window_of_many_small_parts_is_cut_too():
    manifest = manifest_of([(10, 5000)] * 10_000)
    file = VirtualFile()
    for storage in manifest.storages:
        file.add_literal(b"-")
        file.add_span(storage.span)
    cut = list(cut_windows(file, BlobMap(manifest), 0, file.size))
    assert max(len(window.parts) for window in cut) <= windows_module.MAX_PARTS
    assert sum(window.size for window in cut) == file.size


def test_what_a_window_reads_is_bounded_even_if_it_sends_next_to_nothing():
    manifest = manifest_of([(64, 40 * BLOCK_SIZE)])
    file = VirtualFile()
    for block in range(40):
        start = 64 + block * BLOCK_SIZE + 1000
        file.add_span(Span(start, start + 10))
    cut = list(cut_windows(file, BlobMap(manifest), 0, file.size))
    assert sum(window.size for window in cut) == 400
    assert max(sum(block.length for block in window.blocks) for window in cut) <= windows_module.MAX_READ
