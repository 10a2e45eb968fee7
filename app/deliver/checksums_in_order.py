"""The CRC32 of an assembled storage, from those of the storages that are its bytes in order. Pure."""

from collections.abc import Sequence

from ..store.digests import combine_crc32
from ..values.manifest import Assembled, Storage


def crc32_in_order(assembled: Assembled, storages: Sequence[Storage]) -> int | None:
    """Return the CRC32; None if a chunk is only a part of its storage."""
    checksum = 0
    for chunk in assembled.chunks:
        storage, nbytes = storages[chunk.storage], chunk.count * assembled.dtype.itemsize
        if chunk.offset or storage.span.length != nbytes:
            return None
        checksum = combine_crc32(checksum, storage.crc32, nbytes)
    return checksum
