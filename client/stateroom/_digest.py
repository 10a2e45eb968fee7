"""Digests in the server's form: ``blake3:<hex>`` up to 16 MiB, above it ``blake3-16m:<hex>``, the BLAKE3 of the
concatenated BLAKE3 digests of the 16 MiB blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from blake3 import blake3

BLOCK_SIZE = 16 * 1024 * 1024
DIGEST_SIZE = 32

Buffer = Union[bytes, bytearray, memoryview]


class Hasher:
    """The digest of bytes that arrive piece by piece."""

    def __init__(self) -> None:
        self.size = 0
        self._blocks = bytearray()
        self._block = blake3()
        self._room = BLOCK_SIZE

    def update(self, data: Buffer) -> None:
        view = memoryview(data)
        self.size += len(view)
        while view:
            if not self._room:
                self._blocks += self._block.digest()
                self._block, self._room = blake3(), BLOCK_SIZE
            part = view[: self._room]
            self._block.update(part)
            self._room -= len(part)
            view = view[len(part) :]

    def digest(self) -> str:
        return _digest(bytes(self._blocks + self._block.digest()))


def digest_of_blocks(blocks: Sequence[bytes]) -> str:
    """Return the digest of bytes from the digests of their blocks, at least one."""
    return _digest(b"".join(blocks))


def _digest(blocks: bytes) -> str:
    return f"blake3:{blocks.hex()}" if len(blocks) == DIGEST_SIZE else f"blake3-16m:{blake3(blocks).hexdigest()}"
