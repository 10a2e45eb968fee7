"""A small encoder of uploads by Xet: chunks, xorbs and shards."""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import lz4.frame

TAG = b"HFRepoMetaData\0" + bytes(range(17))
END = b"\xff" * 32
VERIFIED, WITH_SHA256 = 1 << 31, 1 << 30

Term = tuple[str, int, int, int]
"""A xorb's hash, the bytes of the chunks, the first of them, and the one after the last."""


def header(packed: int, scheme: int, plain: int, version: int = 0) -> bytes:
    return struct.pack("<B3sB3s", version, packed.to_bytes(3, "little"), scheme, plain.to_bytes(3, "little"))


def chunk(plain: bytes, scheme: int = 0) -> bytes:
    packed = plain
    if scheme == 2:
        packed = b"".join(plain[place::4] for place in range(4))
    if scheme:
        packed = lz4.frame.compress(packed)
    return header(len(packed), scheme, len(plain)) + packed


def pieces(data: bytes, size: int = 65_536) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@dataclass(frozen=True)
class Packed:
    """A xorb as it is sent. Its hash is not the one that Xet computes: here it is only a name."""

    body: bytes
    sizes: Sequence[int]

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    def term(self, first: int = 0, end: int | None = None) -> Term:
        end = len(self.sizes) if end is None else end
        return self.hash, sum(self.sizes[first:end]), first, end


def xorb(chunks: Iterable[bytes], schemes: Sequence[int] = (0,), footer: bytes = b"XETBLOB\1 and more") -> Packed:
    """Pack ``chunks``, the schemes taking turns."""
    chunks = list(chunks)
    body = b"".join(chunk(each, schemes[number % len(schemes)]) for number, each in enumerate(chunks))
    return Packed(body + footer, [len(each) for each in chunks])


def raw_hash(text: str) -> bytes:
    return struct.pack("<4Q", *(int(text[start : start + 16], 16) for start in range(0, 64, 16)))


def shard_file(
    sha256: str, terms: Iterable[Term], flags: int = VERIFIED | WITH_SHA256, count: int | None = None
) -> bytes:
    terms = list(terms)
    count = len(terms) if count is None else count
    records = [struct.pack("<32sIIQ", bytes(32), flags, count, 0)]
    records += [struct.pack("<32sIIII", raw_hash(name), 0, size, first, end) for name, size, first, end in terms]
    records += [bytes(48)] * len(terms) if flags & VERIFIED else []
    records += [raw_hash(sha256) + bytes(16)] if flags & WITH_SHA256 else []
    return b"".join(records)


def shard(*files: bytes, rest: bytes = END + bytes(16) + b"a footer") -> bytes:
    """A shard of ``files``. Its list of xorbs, which nobody reads, is empty."""
    return TAG + struct.pack("<QQ", 2, 200) + b"".join(files) + END + bytes(16) + rest


def shard_of(data: bytes, *terms: Term) -> bytes:
    """A shard of one file."""
    return shard(shard_file(hashlib.sha256(data).hexdigest(), terms))
