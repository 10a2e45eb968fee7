"""Xorbs and shards of Xet: what was packed comes out, and what is damaged is refused, in bounded memory."""

import hashlib
import tracemalloc
from contextlib import suppress

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.formats.xet import shard, xorb
from app.formats.xet.shard import ShardReader
from app.formats.xet.xorb import XorbDecoder
from tests.support import xet
from tests.support.measure import examples

A, B = "0123456789abcdef" * 4, "fedcba9876543210" * 4


def decoded(body: bytes, step: int = 1 << 20) -> tuple[bytes, list[int]]:
    decoder, plain = XorbDecoder(), bytearray()
    for start in range(0, len(body), step):
        decoder.feed(body[start : start + step])
        while read := decoder.read():
            plain += read
    decoder.finish()
    return bytes(plain), decoder.ends


def passed_over(body: bytes) -> None:
    """Decode without keeping anything."""
    decoder = XorbDecoder()
    for piece in xet.pieces(body):
        decoder.feed(piece)
        while decoder.read():
            pass
    decoder.finish()


def files_of(body: bytes, step: int = 1 << 20) -> list[shard.ShardFile]:
    reader = ShardReader()
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    return reader.finish()


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=6),
    schemes=st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=3),
    footer=st.sampled_from([b"", b"XETBLOB\1", b"\1" + bytes(500)]),
    step=st.integers(1, 400),
)
@examples(200)
def test_a_xorb_is_what_was_packed_however_it_arrives(
    chunks: list[bytes], schemes: list[int], footer: bytes, step: int
) -> None:
    plain, ends = decoded(xet.xorb(chunks, schemes, footer).body, step)
    assert plain == b"".join(chunks)
    assert ends == [sum(map(len, chunks[: n + 1])) for n in range(len(chunks))]
    assert list(xorb.unpack_ends(xorb.pack_ends(ends))) == ends


@given(data=st.data(), step=st.integers(1, 500))
@examples(300)
def test_a_damaged_xorb_is_refused_or_is_another_xorb_but_never_an_accident(data: st.DataObject, step: int) -> None:
    body = bytearray(xet.xorb([bytes(200), b"abcd" * 50, bytes(range(100))], (1, 2, 0)).body)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    with suppress(InvalidRequest):
        plain, ends = decoded(bytes(body), step)
        assert len(plain) == ends[-1] <= xorb.MAX_PLAIN


BOMB = lz4.frame.compress(bytes(2**24))
FULL = bytes(xorb.MAX_PLAIN_CHUNK)
HOSTILE_XORBS = {
    "nothing": b"",
    "only a footer": b"XETBLOB",
    "half a header": xet.chunk(b"abc") + bytes(5),
    "half a chunk": xet.chunk(b"abc")[:-1],
    "an empty chunk": xet.header(0, 0, 0),
    "no packed bytes": xet.header(0, 1, 10),
    "a scheme that is none": xet.header(3, 3, 3) + b"abc",
    "another size": xet.header(3, 0, 4) + b"abc",
    "a size over the most": xet.header(100, 1, xorb.MAX_PLAIN_CHUNK + 1) + bytes(100),
    "a packed size over the most": xet.header(xorb.MAX_PACKED_CHUNK + 1, 1, 100) + bytes(100),
    "a bomb": xet.header(len(BOMB), 1, 10) + BOMB,
    "a grouped bomb": xet.header(len(BOMB), 2, xorb.MAX_PLAIN_CHUNK) + BOMB,
    "less than it says": xet.header(len(lz4.frame.compress(b"abc")), 1, 4) + lz4.frame.compress(b"abc"),
    "no LZ4": xet.header(3, 1, 3) + b"abc",
    "half a frame": xet.header(20, 1, 500) + lz4.frame.compress(bytes(range(250)) * 2)[:20],
    "two frames": xet.header(2 * len(lz4.frame.compress(b"abc")), 1, 6) + 2 * lz4.frame.compress(b"abc"),
    "something behind a frame": xet.header(len(lz4.frame.compress(b"abc")) + 1, 1, 3)
    + lz4.frame.compress(b"abc")
    + b"x",
    "too many chunks": xet.chunk(b"a") * (xorb.MAX_CHUNKS + 1),
    "too many bytes": xet.chunk(FULL, 1) * (xorb.MAX_PLAIN // len(FULL) + 1),
}


@pytest.mark.parametrize("what", HOSTILE_XORBS)
def test_a_hostile_xorb_is_refused_with_a_reason_and_without_its_memory(what: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="xorb") as refused:
            passed_over(HOSTILE_XORBS[what])
        assert tracemalloc.get_traced_memory()[1] < 8 * xorb.READ
    finally:
        tracemalloc.stop()
    assert refused.value.code == "malformed-request"


def test_the_most_that_a_xorb_may_have_is_taken() -> None:
    many = xet.chunk(b"a") * xorb.MAX_CHUNKS
    assert len(decoded(many)[1]) == xorb.MAX_CHUNKS
    large = xet.chunk(FULL, 1) * (xorb.MAX_PLAIN // len(FULL))
    assert len(decoded(large)[0]) == xorb.MAX_PLAIN
    noise = hashlib.shake_256(b"noise").digest(xorb.MAX_PLAIN_CHUNK)
    assert decoded(xet.chunk(noise, 2))[0] == noise


@given(step=st.integers(1, 300), flags=st.sampled_from([xet.WITH_SHA256, xet.WITH_SHA256 | xet.VERIFIED]))
@examples(50)
def test_a_shard_is_what_was_packed_however_it_arrives(step: int, flags: int) -> None:
    body = xet.shard(xet.shard_file(A, [(B, 70, 3, 5), (A, 30, 0, 1)], flags), xet.shard_file(B, [(A, 7, 0, 1)], flags))
    first, second = files_of(body, step)
    assert (first.sha256, first.size) == (A, 100)
    assert list(first.terms()) == [shard.Term(B, 70, 3, 5), shard.Term(A, 30, 0, 1)]
    assert (second.sha256, list(second.terms())) == (B, [shard.Term(A, 7, 0, 1)])
    assert files_of(xet.shard()) == []


HOSTILE_SHARDS = {
    "nothing": b"",
    "something else": b"PK\3\4" + bytes(100),
    "another version": xet.TAG + (3).to_bytes(8, "little") + bytes(8),
    "no end": xet.shard(xet.shard_file(A, [(B, 1, 0, 1)]))[:150],
    "a file without terms": xet.shard(xet.shard_file(A, [])),
    "a file without a SHA-256": xet.shard(xet.shard_file(A, [(B, 1, 0, 1)], xet.VERIFIED)),
    "a count of four billion": xet.shard(xet.shard_file(A, [], count=2**32 - 1)),
    "more terms than there are": xet.shard(xet.shard_file(A, [(B, 1, 0, 1)], count=1000)),
    "too many files": xet.shard(xet.shard_file(A, [(B, 1, 0, 1)]) * (shard.MAX_FILES + 1)),
}


@pytest.mark.parametrize("what", HOSTILE_SHARDS)
def test_a_hostile_shard_is_refused_with_a_reason(what: str) -> None:
    with pytest.raises(InvalidRequest, match="shard") as refused:
        files_of(HOSTILE_SHARDS[what])
    assert refused.value.code == "malformed-request"


@given(data=st.data(), step=st.integers(1, 500))
@examples(200)
def test_a_damaged_shard_is_refused_or_is_another_shard_but_never_an_accident(data: st.DataObject, step: int) -> None:
    body = bytearray(xet.shard(xet.shard_file(A, [(B, 70, 3, 5)]), xet.shard_file(B, [(A, 7, 0, 1)])))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidRequest):
        for file in files_of(bytes(body[: data.draw(st.integers(0, len(body)))]), step):
            assert sum(term.size for term in file.terms()) == file.size
