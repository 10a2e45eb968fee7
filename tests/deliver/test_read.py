"""Blobs from a real store and catalog: what is damaged or gone is an error, never a wrong byte."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.catalog import Catalog, packs
from app.catalog.blobs import insert_new
from app.deliver.read import BlobReader
from app.deliver.windows import Block, BlockPart, Window
from app.errors import DamagedBlob
from app.store import LocalPackStore
from app.store.digests import crc32, digest_of
from app.values.checkpoint import Blob
from app.values.digest import BLOCK_SIZE
from app.values.span import Span


@pytest.fixture
def catalog(tmp_path) -> Iterator[Catalog]:
    made = Catalog(f"sqlite:///{tmp_path / 'catalog.sqlite3'}", durable=False)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def store(tmp_path) -> LocalPackStore:
    return LocalPackStore(tmp_path / "packs", durable=False)


def put(catalog: Catalog, store: LocalPackStore, tmp_path: Path, name: str, contents: list[bytes]) -> list[Blob]:
    """A pack of these blobs, 100 bytes apart."""
    made, data = [], b""
    for content in contents:
        digest, blocks = digest_of(content)
        made.append(Blob(digest, name, len(data), len(content), crc32(content), blocks))
        data += content + bytes(100)
    source = tmp_path / f"{name}.source"
    source.write_bytes(data)
    store.create(name, source, [Span(0, len(data))])
    with catalog.write() as session:
        packs.begin(session, name, 60)
        insert_new(session, "ns", packs.seal(session, name, len(data)), made)
    return made


def part(blob: Blob, index: int, start: int, end: int) -> BlockPart:
    length = min(BLOCK_SIZE, blob.length - index * BLOCK_SIZE)
    return BlockPart(Block(blob.digest, index, length), Span(start, end))


def window_of(*parts: BlockPart | memoryview) -> Window:
    window = Window()
    for each in parts:
        window.add(each)
    return window


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
    assert b"".join(reader.load(window)) == expected


def test_a_flipped_bit_is_an_error_whichever_part_of_the_block_is_read(catalog, store, tmp_path):
    (blob,) = put(catalog, store, tmp_path, "one", [os.urandom(50_000)])
    (file,) = (tmp_path / "packs").rglob("one.pack")
    data = bytearray(file.read_bytes())
    data[49_000] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    with pytest.raises(DamagedBlob, match="no longer matches"):
        BlobReader(catalog, store, "ns").load(window_of(part(blob, 0, 0, 10)))


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
    assert b"".join(reader.load(whole, whole_as_they_are=True)) == data[: BLOCK_SIZE + 5000]
    for span in ((0, BLOCK_SIZE - 1), (1, BLOCK_SIZE)):
        with pytest.raises(DamagedBlob):
            reader.load(window_of(part(blob, 0, *span)), whole_as_they_are=True)
    with pytest.raises(DamagedBlob):  # though it was read before, and is still at hand
        reader.load(window_of(part(blob, 1, 0, 10)))
    with pytest.raises(DamagedBlob):  # it is also a part of something else
        reader.load(window_of(part(blob, 0, 0, BLOCK_SIZE), part(blob, 0, 0, 100)), whole_as_they_are=True)


def test_a_pack_that_was_compacted_meanwhile_is_looked_up_once_more(catalog, store, tmp_path):
    content = os.urandom(50_000)
    (blob,) = put(catalog, store, tmp_path, "one", [content])
    reader = BlobReader(catalog, store, "ns")
    reader.locate([blob.digest])
    store.delete("one")
    with catalog.write() as session:
        session.execute(delete_blobs())
    put(catalog, store, tmp_path, "two", [content])
    assert b"".join(reader.load(window_of(part(blob, 0, 0, 50_000)))) == content


def delete_blobs():
    from app.catalog.tables import blobs

    return blobs.delete()


def test_a_blob_that_is_nowhere_is_an_error_and_not_an_empty_answer(catalog, store, tmp_path):
    (blob,) = put(catalog, store, tmp_path, "one", [os.urandom(9000)])
    with pytest.raises(DamagedBlob, match="no longer holds"):
        BlobReader(catalog, store, "another namespace").whole(blob.digest)


def test_a_whole_blob_of_several_blocks(catalog, store, tmp_path):
    content = os.urandom(2 * BLOCK_SIZE + 17)
    (blob,) = put(catalog, store, tmp_path, "one", [content])
    assert BlobReader(catalog, store, "ns").whole(blob.digest) == content


def test_neighbours_are_read_in_one_go(catalog, store, tmp_path):
    blobs = put(catalog, store, tmp_path, "one", [os.urandom(5000) for _ in range(50)])
    reads: list[Span] = []

    class Counting(LocalPackStore):
        def read(self, name: str, span: Span) -> memoryview:
            reads.append(span)
            return super().read(name, span)

    reader = BlobReader(catalog, Counting(tmp_path / "packs", durable=False), "ns")
    reader.load(window_of(*(part(blob, 0, 0, 5000) for blob in blobs)))
    assert len(reads) == 1
