"""Reading a shard: files as lists of terms, each a run of chunks of one xorb. It also lists the chunks of xorbs, which
are not needed.

All records have 48 bytes. A header comes first, then for each file: its hash, flags and number of terms; the terms; as
many records of verification, if a flag says so; and the file's SHA-256, if another flag says so. A record whose hash is
all ones ends the files.
"""

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from ...errors import InvalidRequest

RECORD = 48
MAX_FILES = 20_000
"""Most files of a shard: as many as a commit may have."""

MAX_TERMS = 512 * 1024
"""Most terms of all files of a shard, which take 24 MiB. A term is up to 64 MiB of a file, and usually many MiB."""

_TAG = b"HFRepoMetaData\0"
_VERSION = 2
_END = b"\xff" * 32
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30
_TERM = struct.Struct("<32sIIII")


@dataclass(frozen=True, slots=True)
class Term:
    """The chunks [first, end) of a xorb, which are ``size`` bytes."""

    xorb: str
    size: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file of ``size`` bytes. Its terms stay packed: there may be many."""

    sha256: str
    size: int
    packed_terms: bytes

    def terms(self) -> Iterator[Term]:
        for xorb, _, size, first, end in _TERM.iter_unpack(self.packed_terms):
            yield Term(hash_text(xorb), size, first, end)


def hash_text(raw: bytes) -> str:
    """Write a hash of 32 bytes as Xet does: as four little-endian integers, in hexadecimal digits."""
    return "".join(f"{part:016x}" for part in struct.unpack("<4Q", raw))


class ShardReader:
    """Reads the files of a shard that arrives piece by piece, and passes over what follows them.

    Raises InvalidRequest (``malformed-request``) with the number of the file that is wrong.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self.files: list[ShardFile] = []
        self._terms = 0
        self._reading = self._read()
        self._wanted: int | None = next(self._reading)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Read on."""
        if self._wanted is None:
            return
        self._pending += data
        while self._wanted is not None and len(self._pending) >= self._wanted:
            piece = bytes(self._pending[: self._wanted])
            del self._pending[: self._wanted]
            self._wanted = self._sent(piece)

    def finish(self) -> list[ShardFile]:
        """Return the files, after the last piece."""
        if self._wanted is not None:
            raise self._refused("the shard ends early")
        return self.files

    def _sent(self, piece: bytes) -> int | None:
        try:
            return self._reading.send(piece)
        except StopIteration:
            return None

    def _read(self) -> Generator[int, bytes, None]:
        """Yield the number of bytes that are read next, and get them."""
        header = yield RECORD
        if not header.startswith(_TAG) or int.from_bytes(header[32:40], "little") != _VERSION:
            raise InvalidRequest(f"the body is no shard of Xet in version {_VERSION}")
        while True:
            record = yield RECORD
            if record[:32] == _END:
                return
            flags, count = struct.unpack_from("<II", record, 32)
            self._check(flags, count)
            terms = yield count * RECORD
            if flags & _VERIFIED:
                for _ in range(count):
                    yield RECORD
            sha256 = hash_text((yield RECORD)[:32])
            self.files.append(ShardFile(sha256, sum(each[2] for each in _TERM.iter_unpack(terms)), terms))

    def _check(self, flags: int, count: int) -> None:
        self._terms += count
        if len(self.files) == MAX_FILES:
            raise self._refused(f"a shard has at most {MAX_FILES:,} files")
        if count == 0:
            raise self._refused("it has no terms; a file has at least one byte")
        if self._terms > MAX_TERMS:
            raise self._refused(f"the files up to it have more than {MAX_TERMS:,} terms, the most of a shard")
        if not flags & _WITH_SHA256:
            raise self._refused("it comes without its SHA-256, by which files are verified here")

    def _refused(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"file {len(self.files)} of the shard: {why}")
