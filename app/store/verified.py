"""Verified reads of a blob, block by block. A wrong row in the catalog never exposes bytes outside the blob."""

from collections.abc import Iterator

from ..errors import DamagedBlob
from ..values.checkpoint import Blob
from ..values.digest import BLOCK_DIGEST_SIZE, BLOCK_SIZE
from ..values.span import Span
from . import PackStore
from .digests import digest_of_blocks, verify_block


def check_blob(blob: Blob, length: int | None = None) -> None:
    """Raise DamagedBlob unless ``blob`` has ``length`` bytes (if given), a valid place in a pack, and block digests
    that hash to its digest.
    """
    if length not in {None, blob.length}:
        raise DamagedBlob(f"{blob.digest} has {blob.length:,} bytes in the catalog, but {length:,} in the manifest")
    count = max(1, -(-blob.length // BLOCK_SIZE))
    if blob.offset < 0 or blob.length < 0 or len(blob.blocks) != count * BLOCK_DIGEST_SIZE:
        raise DamagedBlob(f"the catalog's row of {blob.digest} is invalid")
    if digest_of_blocks(blob.blocks) != blob.digest:
        raise DamagedBlob(f"{blob.digest} does not match the digests of its blocks")


def block_span(blob: Blob, index: int) -> Span:
    """The span of block ``index`` of a blob in its pack. Raises DamagedBlob if the blob has no such block."""
    start = index * BLOCK_SIZE
    if not 0 <= start < blob.length:
        raise DamagedBlob(f"{blob.digest} has {blob.length:,} bytes and no block {index}")
    return Span(blob.offset + start, blob.offset + min(start + BLOCK_SIZE, blob.length))


def verified_blocks(store: PackStore, blob: Blob) -> Iterator[memoryview]:
    """The blocks of ``blob``, in order, with at most 16 MiB in memory at a time.

    Raises DamagedBlob if a block does not match its digest, and what ``PackStore.read`` raises.
    """
    check_blob(blob)
    for index in indexes_of(blob):
        yield verified_block(store, blob, index)


def indexes_of(blob: Blob) -> range:
    """The block numbers of ``blob``."""
    return range(-(-blob.length // BLOCK_SIZE))


def verified_block(store: PackStore, blob: Blob, index: int) -> memoryview:
    """One block of ``blob``. Raises the errors of ``verified_blocks``."""
    block = store.read(blob.pack, block_span(blob, index))
    verify_block(block, blob.blocks, index)
    return block
