"""Downloads from a store that is far away ask for blocks before they need them, within a budget."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from app.catalog import Catalog
from app.deliver.read import BlobReader
from app.deliver.read_ahead import ByteBudget, ReadAhead
from app.deliver.windows import Window
from app.errors import DamagedBlob, StoreError
from app.store.object_store import ObjectPackStore
from app.values.checkpoint import Blob
from app.values.digest import BLOCK_SIZE
from app.values.span import Span
from tests.deliver.stored_blobs import loaded, part, put, window_of

CONTENT = os.urandom(5 * BLOCK_SIZE + 77)


class Recording(ObjectPackStore):
    """Records what is read, and spoils as many reads as it is told."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.reads: list[Span] = []
        self.to_fail = 0
        self.to_spoil = 0

    def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
        self.reads.append(span)
        data = super().read(name, span, ahead=ahead)
        if self.to_fail:
            self.to_fail -= 1
            raise StoreError("the store does not answer")
        if self.to_spoil:
            self.to_spoil -= 1
            return memoryview(bytes(len(data)))
        return data


@pytest.fixture
def store() -> Iterator[Recording]:
    with closing(Recording()) as store:
        yield store


@pytest.fixture
def catalog(migrated: Path, tmp_path: Path) -> Iterator[Catalog]:
    file = shutil.copy(migrated, tmp_path / "catalog.sqlite3")
    with closing(Catalog(f"sqlite:///{file}", durable=False)) as catalog:
        yield catalog


@pytest.fixture
def blob(catalog: Catalog, store: Recording, tmp_path: Path) -> Blob:
    (blob,) = put(catalog, store, tmp_path, "one", [CONTENT])
    return blob


def windows_of(blob: Blob) -> Iterator[Window]:
    for index in range(6):
        yield window_of(part(blob, index, 0, min(BLOCK_SIZE, blob.length - index * BLOCK_SIZE)))


def sent(reader: BlobReader, blob: Blob) -> bytes:
    return b"".join(b"".join(loaded(reader, window)) for window in reader.looking_ahead(windows_of(blob)))


@pytest.mark.parametrize("budget", [0, BLOCK_SIZE, 3 * BLOCK_SIZE, 100 * BLOCK_SIZE])
def test_all_bytes_come_in_order_each_read_once_whatever_the_budget(
    catalog: Catalog, store: Recording, blob: Blob, budget: int
) -> None:
    left = ByteBudget(budget)
    with ThreadPoolExecutor(4) as threads:
        assert sent(BlobReader(catalog, store, "ns", ahead=ReadAhead(store, threads, left)), blob) == CONTENT
    assert sorted(span.start for span in store.reads) == [i * BLOCK_SIZE for i in range(6)]
    assert left.take(budget)  # all of it was given back


def test_the_first_window_is_asked_for_alone_and_then_the_next_ones_together(
    catalog: Catalog, store: Recording, blob: Blob
) -> None:
    with ThreadPoolExecutor(4) as threads:
        reader = BlobReader(catalog, store, "ns", ahead=ReadAhead(store, threads, ByteBudget(3 * BLOCK_SIZE)))
        windows = reader.looking_ahead(windows_of(blob))
        first = next(windows)
        loaded(reader, first)
        assert [span.start for span in store.reads] == [0]
        next(windows)
        threads.shutdown(wait=True)
        assert sorted(span.start for span in store.reads) == [i * BLOCK_SIZE for i in range(4)]


def test_a_download_that_ends_early_gives_its_share_of_the_budget_back(
    catalog: Catalog, store: Recording, blob: Blob
) -> None:
    budget = ByteBudget(4 * BLOCK_SIZE)
    with ThreadPoolExecutor(1) as threads:
        reader = BlobReader(catalog, store, "ns", ahead=ReadAhead(store, threads, budget))
        windows = reader.looking_ahead(windows_of(blob))
        loaded(reader, next(windows))
        next(windows)
        assert not budget.take(BLOCK_SIZE)
        windows.close()  # type: ignore[attr-defined]  # a generator
        assert budget.take(4 * BLOCK_SIZE)


def test_a_read_ahead_that_fails_is_made_again(catalog: Catalog, store: Recording, blob: Blob) -> None:
    with ThreadPoolExecutor(1) as threads:
        ahead = ReadAhead(store, threads, ByteBudget(100 * BLOCK_SIZE))
        windows = BlobReader(catalog, store, "ns", ahead=ahead).looking_ahead(windows_of(blob))
        reader = BlobReader(catalog, store, "ns", ahead=ahead)
        data = b"".join(loaded(reader, next(windows)))
        store.to_fail = 3
        second = next(windows)
        threads.shutdown(wait=True)
        assert store.to_fail == 0
        data += b"".join(loaded(reader, second)) + b"".join(b"".join(loaded(reader, window)) for window in windows)
    assert data == CONTENT


def test_wrong_bytes_are_asked_for_once_more_and_are_damage_only_if_they_come_again(
    catalog: Catalog, store: Recording, blob: Blob
) -> None:
    store.to_spoil = 1
    reader = BlobReader(catalog, store, "ns")
    assert b"".join(loaded(reader, next(windows_of(blob)))) == CONTENT[:BLOCK_SIZE]
    store.to_spoil = 2
    with pytest.raises(DamagedBlob):
        loaded(BlobReader(catalog, store, "ns"), next(windows_of(blob)))
    assert b"".join(loaded(BlobReader(catalog, store, "ns"), next(windows_of(blob)))) == CONTENT[:BLOCK_SIZE]


def test_what_is_read_ahead_is_read_by_blocks_of_a_few_mebibytes(
    catalog: Catalog, store: Recording, tmp_path: Path
) -> None:
    contents = [os.urandom(size) for size in (5_000_000, 4_500_000, 70_000, 60_000, 5_100_000)]
    blobs = put(catalog, store, tmp_path, "many", contents)
    window = window_of(*(part(blob, 0, 0, blob.length) for blob in blobs))
    with ThreadPoolExecutor(4) as threads:
        reader = BlobReader(catalog, store, "ns", ahead=ReadAhead(store, threads, ByteBudget(100 * BLOCK_SIZE)))
        first = window_of(memoryview(b"first"))
        windows = reader.looking_ahead(iter([first, first, window]))
        data = [b"".join(loaded(reader, each)) for each in windows]
    assert data == [b"first", b"first", b"".join(contents)]
    one, two, small, _, last = blobs
    assert sorted(store.reads, key=lambda span: span.start) == [
        Span(one.offset, one.offset + one.length),
        Span(two.offset, two.offset + two.length),
        Span(small.offset, last.offset + last.length),
    ]


@pytest.mark.parametrize("spoiled", ["frame", "manifest", "neither"])
def test_a_small_frame_comes_with_its_manifest_which_is_there_without_it(
    catalog: Catalog, store: Recording, tmp_path: Path, spoiled: str
) -> None:
    frame, manifest = put(catalog, store, tmp_path, "two", [os.urandom(3000), os.urandom(2000)])
    content = bytes(store.read("two", Span(0, 5100)))
    expected = content[manifest.offset : manifest.offset + manifest.length]
    if spoiled != "neither":
        blob = frame if spoiled == "frame" else manifest
        wrong = bytearray(content)
        wrong[blob.offset] ^= 1
        store.delete("two")
        store.write("two", [bytes(wrong)])
    store.reads.clear()
    with ThreadPoolExecutor(2) as threads:
        budget = ByteBudget(100 * BLOCK_SIZE)
        reader = BlobReader(catalog, store, "ns", frame.digest, ReadAhead(store, threads, budget))
        if spoiled == "manifest":
            with pytest.raises(DamagedBlob):
                reader.manifest(manifest.digest)
            return
        assert reader.manifest(manifest.digest) == expected
    assert budget.take(100 * BLOCK_SIZE)
    if spoiled == "neither":
        assert reader.whole(frame.digest) == content[frame.offset : frame.offset + frame.length]
        assert store.reads == [Span(frame.offset, manifest.offset + manifest.length)]
