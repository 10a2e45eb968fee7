"""Digests: the names of blobs.

A digest is identity, so its definition never changes. Up to 16 MiB it is ``blake3:<hex>``, the BLAKE3 of the
bytes. Above, it is ``blake3-16m:<hex>``, the BLAKE3 of the concatenated BLAKE3 digests (32 bytes each) of the
16 MiB blocks, so that a huge storage can be hashed, sent and verified block by block.
"""

from typing import NewType

Digest = NewType("Digest", str)

BLOCK_SIZE = 16 * 1024 * 1024
"""Bytes in a block; only the last block of a blob is shorter."""

BLOCK_DIGEST_SIZE = 32
"""Bytes in the raw BLAKE3 digest of a block."""
