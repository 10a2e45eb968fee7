"""Hashing with BLAKE3 and CRC32, for the whole server. The format of a digest is defined in values/digest.py.

All functions release the GIL for buffers of more than a few KiB, so threads hash in parallel.
"""

from blake3 import blake3
from isal import isal_zlib

from ..errors import DamagedBlob
from ..values.digest import BLOCK_DIGEST_SIZE, BLOCK_SIZE, Digest
from .files import Buffer

_PIECE = 256 * 1024
"""Bytes that a core's cache keeps between two passes over them."""


def block_digest(block: Buffer) -> bytes:
    """The raw BLAKE3 digest (32 bytes) of a block of at most 16 MiB."""
    return blake3(block).digest()


def checked_block(block: Buffer) -> tuple[int, bytes]:
    """Return the CRC32 and the raw digest of a block of at most 16 MiB, which is read from memory once for both."""
    view, checksum, hasher = memoryview(block), 0, blake3()
    for start in range(0, len(view), _PIECE):
        piece = view[start : start + _PIECE]
        checksum = crc32(piece, checksum)
        hasher.update(piece)
    return checksum, hasher.digest()


def digest_of_blocks(blocks: bytes) -> Digest:
    """The digest of bytes whose raw block digests, concatenated, are ``blocks``."""
    if len(blocks) == BLOCK_DIGEST_SIZE:
        return Digest(f"blake3:{blocks.hex()}")
    return Digest(f"blake3-16m:{blake3(blocks).hexdigest()}")


def digest_of(data: Buffer) -> tuple[Digest, bytes]:
    """The digest of ``data``, and its raw block digests, concatenated."""
    hasher = Hasher()
    hasher.update(data)
    return hasher.digest, hasher.blocks


def verify_block(block: Buffer, blocks: bytes, index: int) -> None:
    """Raise DamagedBlob unless ``block`` is the block ``index`` of the blob whose block digests are ``blocks``."""
    if block_digest(block) != blocks[index * BLOCK_DIGEST_SIZE : (index + 1) * BLOCK_DIGEST_SIZE]:
        raise DamagedBlob(f"block {index} of {digest_of_blocks(blocks)} no longer matches its digest")


def crc32(data: Buffer, value: int = 0) -> int:
    """The CRC32 of ``data``, or of bytes with the CRC32 ``value`` followed by ``data``."""
    checksum: int = isal_zlib.crc32(data, value)
    return checksum


def combine_crc32(first: int, second: int, second_length: int) -> int:
    """The CRC32 of bytes with the CRC32 ``first`` followed by ``second_length`` bytes with the CRC32 ``second``."""
    checksum: int = isal_zlib.crc32_combine(first, second, second_length)
    return checksum


class Hasher:
    """An incremental hasher: the digest of bytes that arrive in pieces."""

    def __init__(self) -> None:
        self._done = bytearray()
        self._block = blake3()
        self._filled = 0

    def update(self, data: Buffer) -> None:
        view, start = memoryview(data).cast("B"), 0
        while start < len(view):
            if self._filled == BLOCK_SIZE:
                self._done += self._block.digest()
                self._block, self._filled = blake3(), 0
            piece = view[start : start + BLOCK_SIZE - self._filled]
            self._block.update(piece)
            self._filled += len(piece)
            start += len(piece)

    @property
    def blocks(self) -> bytes:
        """The raw block digests so far, concatenated. Zero bytes count as one empty block."""
        return bytes(self._done) + self._block.digest()

    @property
    def digest(self) -> Digest:
        return digest_of_blocks(self.blocks)
