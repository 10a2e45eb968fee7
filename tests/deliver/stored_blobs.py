"""Blobs in a real pack and catalog, and windows of them."""

from pathlib import Path

from app.catalog import Catalog, packs
from app.catalog.blobs import insert_new
from app.deliver.read import BlobReader
from app.deliver.windows import Block, BlockSpan, Window
from app.store import PackStore
from app.store.digests import crc32, digest_of
from app.values.checkpoint import Blob
from app.values.digest import BLOCK_SIZE
from app.values.span import Span


def put(catalog: Catalog, store: PackStore, tmp_path: Path, name: str, contents: list[bytes]) -> list[Blob]:
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


def part(blob: Blob, index: int, start: int, end: int) -> BlockSpan:
    length = min(BLOCK_SIZE, blob.length - index * BLOCK_SIZE)
    return BlockSpan(Block(blob.digest, index, length), Span(start, end))


def window_of(*parts: BlockSpan | memoryview) -> Window:
    window = Window()
    for each in parts:
        window.add(each)
    return window


def loaded(reader: BlobReader, window: Window, **options: bool) -> list[memoryview]:
    loading = reader.load(window, **options)
    while True:
        try:
            next(loading)
        except StopIteration as end:
            return end.value
