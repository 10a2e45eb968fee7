"""Blobs from a real store and catalog: a damaged or missing blob is an error, never a wrong byte."""

import os
import shutil
from collections.abc import Iterator

import pytest

from app.catalog import Catalog, tables
from app.deliver.read import BlobReader
from app.deliver.spans import BlobMap
from app.deliver.windows import Block, BlockSpan, cut_windows
from app.errors import DamagedBlob
from app.store import LocalPackStore
from app.values.digest import BLOCK_SIZE
from app.values.manifest import Manifest, Storage
from app.values.span import Span
from app.values.virtual_file import VirtualFile
from tests.deliver.stored_blobs import loaded, part, put, window_of


@pytest.fixture
def catalog(migrated, tmp_path) -> Iterator[Catalog]:
    made = Catalog(f"sqlite:///{shutil.copy(migrated, tmp_path / 'catalog.sqlite3')}", durable=False)
    yield made
    made.close()


@pytest.fixture
def store(tmp_path) -> LocalPackStore:
    return LocalPackStore(tmp_path / "packs", durable=False)


def test_a_window_is_its_parts_in_order_wherever_they_are_kept(catalog, store, tmp_path):
    large, small = os.urandom(BLOCK_SIZE + 5000), [os.urandom(5000 + i) for i in range(40)]
    blobs = put(catalog, store, tmp_path, "one", [large, *small[:20]]) + put(
        catalog, store, tmp_path, "two", small[20:]
    )
    reader = BlobReader(catalog, store, "ns")
    window = window_of(memoryview(b"head"))
    expected = b"head"
    for blob, content in reversed(list(zip(blobs[1:], small, strict=True))):
        window.add(part(blob, 0, 7, 4000))
        window.add(memoryview(b"-"))
        expected += content[7:4000] + b"-"
    window.add(part(blobs[0], 1, 10, 5000))
    expected += large[BLOCK_SIZE + 10 :]
    assert b"".join(loaded(reader, window)) == expected


def test_a_flipped_bit_is_an_error_whichever_part_of_the_block_is_read(catalog, store, tmp_path):
    (blob,) = put(catalog, store, tmp_path, "one", [os.urandom(50_000)])
    (file,) = (tmp_path / "packs").rglob("one.pack")
    data = bytearray(file.read_bytes())
    data[49_000] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    with pytest.raises(DamagedBlob, match="no longer matches"):
        loaded(BlobReader(catalog, store, "ns"), window_of(part(blob, 0, 0, 10)))


@pytest.mark.parametrize("verifies", [False, True], ids=["server-verifies", "client-verifies"])
@pytest.mark.parametrize("length", [BLOCK_SIZE, 5001, 4999, 1])
def test_no_read_goes_past_its_blob_whatever_a_manifest_says(catalog, store, tmp_path, length, verifies):
    one, *_ = put(catalog, store, tmp_path, "one", [os.urandom(5000), b"somebody else's" * 2_000_000])
    block = Block(one.digest, 0, length)
    with pytest.raises(DamagedBlob, match="in the manifest"):
        loaded(
            BlobReader(catalog, store, "ns"), window_of(BlockSpan(block, Span(0, length))), whole_as_they_are=verifies
        )


@pytest.mark.parametrize("index", [1, 2, -1])
def test_there_is_no_block_behind_the_last_one(catalog, store, tmp_path, index):
    one, *_ = put(catalog, store, tmp_path, "one", [os.urandom(BLOCK_SIZE), os.urandom(3 * BLOCK_SIZE)])
    window = window_of(BlockSpan(Block(one.digest, index, BLOCK_SIZE), Span(0, BLOCK_SIZE)))
    with pytest.raises(DamagedBlob, match=f"no block {index}"):
        loaded(BlobReader(catalog, store, "ns"), window, whole_as_they_are=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": -5},
        {"length": 2 * BLOCK_SIZE},
        {"length": 50_001},
        {"length": -1},
        {"blocks": b""},
        {"blocks": bytes(32)},
        {"blocks": bytes(64)},
    ],
    ids=str,
)
def test_no_read_goes_past_its_blob_whatever_the_catalog_says(catalog, store, tmp_path, wrong):
    (one, *_) = put(catalog, store, tmp_path, "one", [os.urandom(50_000), os.urandom(3 * BLOCK_SIZE)])
    with catalog.write() as session:
        session.execute(tables.blobs.update().where(tables.blobs.c.digest == one.digest).values(wrong))
    window = window_of(BlockSpan(Block(one.digest, 0, 50_000), Span(0, 50_000)))
    with pytest.raises(DamagedBlob):
        loaded(BlobReader(catalog, store, "ns"), window, whole_as_they_are=True)


@pytest.mark.parametrize("verifies", [False, True], ids=["server-verifies", "client-verifies"])
def test_a_file_that_has_one_digest_for_two_lengths_is_read_where_it_is_right_alone(catalog, store, tmp_path, verifies):
    content, frame = os.urandom(5000), os.urandom(100)
    one, head, *_ = put(catalog, store, tmp_path, "one", [content, frame, os.urandom(90_000)])
    storages = [Storage("0", "cpu", None, Span(100, 5100), 0, one.digest)]
    storages += [Storage("1", "cpu", None, Span(5100, 45_100), 0, one.digest)]
    file = BlobMap(Manifest("torch_zip", 45_100, Span(0, 0), tuple(storages), (), (), frame=head.digest))
    reader = BlobReader(catalog, store, "ns", head.digest)
    virtual = VirtualFile()
    virtual.add_span(Span(0, 45_100))
    good, bad = (list(cut_windows(virtual, file, *span)) for span in ((0, 5100), (5100, 45_100)))
    assert b"".join(b"".join(loaded(reader, each, whole_as_they_are=verifies)) for each in good) == frame + content
    for window in bad:
        with pytest.raises(DamagedBlob):
            loaded(reader, window, whole_as_they_are=verifies)


def test_what_lies_between_two_blobs_is_read_and_never_given_out(catalog, store, tmp_path):
    contents = [os.urandom(5000), b"SECRET" * 1000, os.urandom(6000)]
    one, _, two = put(catalog, store, tmp_path, "one", contents)
    window = window_of(part(one, 0, 0, 5000), part(two, 0, 0, 6000))
    views = loaded(BlobReader(catalog, store, "ns"), window, whole_as_they_are=True)
    assert b"".join(views) == contents[0] + contents[2]


def test_only_blocks_that_go_out_whole_are_left_to_the_client_to_verify(catalog, store, tmp_path):
    content = os.urandom(BLOCK_SIZE + 5000)
    (blob,) = put(catalog, store, tmp_path, "one", [content])
    (file,) = (tmp_path / "packs").rglob("one.pack")
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    data[BLOCK_SIZE + 10] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    reader = BlobReader(catalog, store, "ns")
    whole = window_of(part(blob, 0, 0, BLOCK_SIZE), part(blob, 1, 0, 5000))
    assert b"".join(loaded(reader, whole, whole_as_they_are=True)) == data[: BLOCK_SIZE + 5000]
    for span in ((0, BLOCK_SIZE - 1), (1, BLOCK_SIZE)):
        with pytest.raises(DamagedBlob):
            loaded(reader, window_of(part(blob, 0, *span)), whole_as_they_are=True)
    with pytest.raises(DamagedBlob):  # though it was read before, and is still at hand
        loaded(reader, window_of(part(blob, 1, 0, 10)))
    with pytest.raises(DamagedBlob):  # it is also a part of something else
        loaded(reader, window_of(part(blob, 0, 0, BLOCK_SIZE), part(blob, 0, 0, 100)), whole_as_they_are=True)


def test_a_pack_that_was_compacted_meanwhile_is_looked_up_once_more(catalog, store, tmp_path):
    content = os.urandom(50_000)
    (blob,) = put(catalog, store, tmp_path, "one", [content])
    reader = BlobReader(catalog, store, "ns")
    reader.locate([blob.digest])
    store.delete("one")
    with catalog.write() as session:
        session.execute(delete_blobs())
    put(catalog, store, tmp_path, "two", [content])
    assert b"".join(loaded(reader, window_of(part(blob, 0, 0, 50_000)))) == content


def delete_blobs():
    from app.catalog.tables import blobs

    return blobs.delete()


def test_a_blob_that_is_nowhere_is_an_error_and_not_an_empty_answer(catalog, store, tmp_path):
    (blob,) = put(catalog, store, tmp_path, "one", [os.urandom(9000)])
    with pytest.raises(DamagedBlob, match="no longer in the store"):
        BlobReader(catalog, store, "another namespace").whole(blob.digest)


def test_a_whole_blob_of_several_blocks(catalog, store, tmp_path):
    content = os.urandom(2 * BLOCK_SIZE + 17)
    (blob,) = put(catalog, store, tmp_path, "one", [content])
    assert BlobReader(catalog, store, "ns").whole(blob.digest) == content


def test_neighbours_are_read_in_one_go(catalog, store, tmp_path):
    blobs = put(catalog, store, tmp_path, "one", [os.urandom(5000) for _ in range(50)])
    reads: list[Span] = []

    class Counting(LocalPackStore):
        def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
            reads.append(span)
            return super().read(name, span)

    reader = BlobReader(catalog, Counting(tmp_path / "packs", durable=False), "ns")
    loaded(reader, window_of(*(part(blob, 0, 0, 5000) for blob in blobs)))
    assert len(reads) == 1
