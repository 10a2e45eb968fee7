"""A blob's bytes for whoever reads them: block by block, and never a byte beside it, whatever the catalog says."""

from collections.abc import Iterator

from ..errors import DamagedBlob
from ..values.checkpoint import Blob
from ..values.digest import BLOCK_DIGEST_SIZE, BLOCK_SIZE
from ..values.span import Span
from . import PackStore
from .digests import digest_of_blocks, verify_block


def check_blob(blob: Blob, length: int | None = None) -> None:
    """Raise DamagedBlob unless ``blob`` has ``length`` bytes, where that is known, a place in a pack, and block digests
    that make its own.
    """
    if length not in {None, blob.length}:
        raise DamagedBlob(f"{blob.digest} has {blob.length:,} bytes in the catalog, and {length:,} in a manifest")
    count = max(1, -(-blob.length // BLOCK_SIZE))
    if blob.offset < 0 or blob.length < 0 or len(blob.blocks) != count * BLOCK_DIGEST_SIZE:
        raise DamagedBlob(f"the catalog's row of {blob.digest} is not that of a blob")
    if digest_of_blocks(blob.blocks) != blob.digest:
        raise DamagedBlob(f"{blob.digest} is not what the digests of its blocks make")


def block_span(blob: Blob, index: int) -> Span:
    """Where block ``index`` of a blob lies in its pack. Raises DamagedBlob where it has no such block."""
    start = index * BLOCK_SIZE
    if not 0 <= start < blob.length:
        raise DamagedBlob(f"{blob.digest} has {blob.length:,} bytes, and no block {index}")
    return Span(blob.offset + start, blob.offset + min(start + BLOCK_SIZE, blob.length))


def verified_blocks(store: PackStore, blob: Blob) -> Iterator[memoryview]:
    """The blocks of ``blob``, in order; at most 16 MiB are held at a time.

    Raises DamagedBlob where one does not match its digest, and what ``PackStore.read`` raises.
    """
    check_blob(blob)
    for index in indexes_of(blob):
        yield verified_block(store, blob, index)


def indexes_of(blob: Blob) -> range:
    """The numbers of its blocks."""
    return range(-(-blob.length // BLOCK_SIZE))


def verified_block(store: PackStore, blob: Blob, index: int) -> memoryview:
    """One of them. Raises as ``verified_blocks`` does."""
    block = store.read(blob.pack, block_span(blob, index))
    verify_block(block, blob.blocks, index)
    return block
