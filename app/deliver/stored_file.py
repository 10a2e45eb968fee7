"""A checkpoint's uploaded file, as it is stored."""

from dataclasses import dataclass

from ..values.manifest import Manifest
from .checksums import Checksums
from .read import BlobReader
from .spans import BlobMap


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The manifest of the uploaded file, the blobs that its bytes lie in, their reader, and the CRC32s of its parts.

    Each download has one of its own, because its reader is not for use by two threads at once.
    """

    manifest: Manifest
    blobs: BlobMap
    reader: BlobReader
    checksums: Checksums
