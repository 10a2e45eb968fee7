"""A blob's bytes for whoever checks or copies them: block by block, each verified before it is given out."""

from collections.abc import Iterator

from ..values.checkpoint import Blob
from ..values.digest import BLOCK_SIZE
from ..values.span import Span
from . import PackStore
from .digests import verify_block


def verified_blocks(store: PackStore, blob: Blob) -> Iterator[memoryview]:
    """The blocks of ``blob``, in order; at most 16 MiB are held at a time.

    Raises DamagedBlob where one does not match its digest, and what ``PackStore.read`` raises.
    """
    for index, start in enumerate(range(0, blob.length, BLOCK_SIZE)):
        span = Span(blob.offset + start, blob.offset + min(start + BLOCK_SIZE, blob.length))
        block = store.read(blob.pack, span)
        verify_block(block, blob.blocks, index)
        yield block
