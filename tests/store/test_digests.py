"""Digests are identity: their definition is checked against BLAKE3 itself, and against fixed values."""

import zlib

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DamagedBlob
from app.store.digests import Hasher, checked_block, combine_crc32, crc32, digest_of, verify_block
from app.values.digest import BLOCK_SIZE


def test_no_bytes_have_the_digest_that_blake3_defines():
    empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest_of(b"") == (f"blake3:{empty}", bytes.fromhex(empty))


@pytest.mark.parametrize("size", [1, BLOCK_SIZE - 1, BLOCK_SIZE])
def test_up_to_one_block_the_digest_is_plain_blake3(size: int):
    data = bytes(size)
    assert digest_of(data) == (f"blake3:{blake3(data).hexdigest()}", blake3(data).digest())


@pytest.mark.parametrize("size", [BLOCK_SIZE + 1, 2 * BLOCK_SIZE, 2 * BLOCK_SIZE + 5])
def test_above_one_block_the_digest_is_blake3_of_the_blocks_digests(size: int):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    blocks = b"".join(blake3(data[start : start + BLOCK_SIZE]).digest() for start in range(0, size, BLOCK_SIZE))
    assert digest_of(data) == (f"blake3-16m:{blake3(blocks).hexdigest()}", blocks)


@pytest.mark.parametrize("size", [0, 1, 1 << 18, (1 << 18) + 1, (3 << 18) + 7, BLOCK_SIZE])
def test_a_block_that_is_read_once_has_the_same_checksum_and_digest(size: int):
    block = (bytes(range(251)) * (size // 251 + 1))[:size]
    assert checked_block(block) == (zlib.crc32(block), blake3(block).digest())


@pytest.mark.parametrize("piece", [1 << 20, (1 << 20) + 1, BLOCK_SIZE, 3 * BLOCK_SIZE])
def test_bytes_that_come_in_pieces_have_the_same_digest(piece: int):
    data = bytes(range(250)) * (2 * BLOCK_SIZE // 250 + 1)
    hasher = Hasher()
    for start in range(0, len(data), piece):
        hasher.update(memoryview(data)[start : start + piece])
    assert (hasher.digest, hasher.blocks) == digest_of(data)


def test_a_block_is_verified_against_its_own_digest():
    data = bytes(BLOCK_SIZE) + b"the second block"
    blocks = digest_of(data)[1]
    verify_block(memoryview(data)[:BLOCK_SIZE], blocks, 0)
    verify_block(b"the second block", blocks, 1)
    for block, index in ((b"the second blocK", 1), (b"the second bloc", 1), (b"the second block", 0)):
        with pytest.raises(DamagedBlob):
            verify_block(block, blocks, index)


def test_a_block_that_the_blob_does_not_have_is_damage():
    with pytest.raises(DamagedBlob):
        verify_block(b"", digest_of(b"")[1], 1)


@given(st.binary(), st.binary())
def test_checksums_of_neighbours_combine(first: bytes, second: bytes):
    together = zlib.crc32(first + second)
    assert crc32(second, crc32(first)) == together
    assert combine_crc32(crc32(first), crc32(second), len(second)) == together
