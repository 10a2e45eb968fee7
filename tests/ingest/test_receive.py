"""An upload arrives whole, in bounded memory, or leaves nothing behind."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from app.errors import IncompleteUpload, InvalidRequest, NotACheckpoint, StateroomError, StorageFull
from app.ingest.body import Chunks
from app.ingest.receive import BATCH_SIZE, BATCHES
from app.store.digests import digest_of
from tests.ingest.workplace import MIB, Workplace, chunked
from tests.support.measure import examples


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@given(chunks=st.lists(st.binary(max_size=50), min_size=1, max_size=20), says_its_size=st.booleans())
@examples(30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_an_upload_arrives_as_it_was_sent_however_it_is_cut(place: Workplace, chunks: list[bytes], says_its_size: bool):
    data = b"".join(chunks) + b"not nothing"
    upload = asyncio.run(
        place.ingest.receive(Chunks(pieces(*chunks, b"not nothing")), len(data) if says_its_size else None)
    )
    assert upload.file.path.read_bytes() == data
    assert (upload.size, upload.digest) == (len(data), digest_of(data)[0])
    assert upload.sha256 is None
    place.ingest.discard(upload)
    assert place.contents() == ({}, {})


def test_bytes_are_compared_with_the_sha256_that_is_expected_of_them(place: Workplace):
    data = bytes(range(256)) * (3 * BATCH_SIZE // 256) + b"and some"
    sha256 = hashlib.sha256(data).hexdigest()
    upload = asyncio.run(place.ingest.receive(Chunks(chunked(data, 1_000_003)), None, sha256=sha256))
    assert upload.sha256 == sha256
    place.ingest.discard(upload)
    with pytest.raises(InvalidRequest, match=sha256) as refused:
        asyncio.run(place.ingest.receive(Chunks(chunked(data[:-1])), None, sha256=sha256))
    assert refused.value.code == "digest-mismatch"
    assert place.contents() == ({}, {})


def test_a_small_upload_of_known_size_has_both_hashes(place: Workplace):
    data = b"a small upload" * 1000
    sha256 = hashlib.sha256(data).hexdigest()
    upload = asyncio.run(place.ingest.receive(Chunks(chunked(data)), len(data), sha256=sha256))
    assert upload.file.path.read_bytes() == data
    assert (upload.size, upload.digest, upload.sha256) == (len(data), digest_of(data)[0], sha256)
    place.ingest.discard(upload)
    with pytest.raises(InvalidRequest, match=sha256):
        asyncio.run(place.ingest.receive(Chunks(chunked(data[1:])), len(data) - 1, sha256=sha256))
    assert place.contents() == ({}, {})


def test_an_upload_of_many_batches_arrives_as_it_was_sent(place: Workplace):
    data = bytes(range(256)) * (3 * BATCH_SIZE // 256) + b"and some"
    upload = asyncio.run(place.ingest.receive(Chunks(chunked(data, 1_000_003)), None))
    assert upload.file.path.read_bytes() == data
    assert upload.digest == digest_of(data)[0]
    place.ingest.discard(upload)


def test_the_pack_is_announced_before_any_byte_is_written(place: Workplace):
    upload = asyncio.run(place.ingest.receive(Chunks(pieces(b"x")), None))
    assert place.contents() == ({f"spool/{upload.name}": 1}, {upload.name: "writing"})
    place.ingest.discard(upload)


async def breaking_off() -> AsyncIterator[bytes]:
    yield bytes(2 * BATCH_SIZE)
    raise ConnectionError("the client went away")


async def refused_half_way() -> AsyncIterator[bytes]:
    yield bytes(2 * BATCH_SIZE)
    raise InvalidRequest("a part of the form is malformed")


@pytest.mark.parametrize(
    ("chunks", "expected_size", "error"),
    [
        (lambda: pieces(bytes(10)), 11, IncompleteUpload),
        (lambda: pieces(bytes(10), bytes(2)), 11, IncompleteUpload),
        (lambda: chunked(bytes(3 * BATCH_SIZE)), 3 * BATCH_SIZE - 1, IncompleteUpload),
        (lambda: chunked(bytes(3 * BATCH_SIZE)), 3 * BATCH_SIZE + 1, IncompleteUpload),
        (pieces, 5, IncompleteUpload),
        (pieces, 0, NotACheckpoint),
        (pieces, None, NotACheckpoint),
        (lambda: pieces(b"", b""), None, NotACheckpoint),
        (breaking_off, None, IncompleteUpload),
        (refused_half_way, None, InvalidRequest),
    ],
)
def test_an_upload_that_is_not_what_it_said_leaves_nothing_behind(
    place: Workplace,
    chunks: Callable[[], AsyncIterator[bytes]],
    expected_size: int | None,
    error: type[StateroomError],
):
    with pytest.raises(error) as caught:
        asyncio.run(place.ingest.receive(Chunks(chunks()), expected_size))
    assert type(caught.value) is error
    assert place.contents() == ({}, {})


@pytest.mark.parametrize("sent", [0, 10, BATCH_SIZE, 3 * BATCH_SIZE + 10])
def test_an_upload_whose_client_goes_away_leaves_nothing_behind(place: Workplace, sent: int):
    async def cancelled() -> None:
        waits = asyncio.Event()

        async def stalling() -> AsyncIterator[bytes]:
            async for chunk in chunked(bytes(sent)):
                yield chunk
            waits.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(place.ingest.receive(Chunks(stalling()), None))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert place.contents() == ({}, {})


def test_an_upload_cancelled_before_it_began_leaves_nothing_behind(place: Workplace):
    async def cancelled() -> None:
        task = asyncio.create_task(place.ingest.receive(Chunks(pieces(b"x")), None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert place.contents() == ({}, {})


def test_a_fast_client_waits_for_the_disk(place: Workplace):
    """What was taken from the client and is not in the file yet is at most the batches and a chunk."""
    chunk = 256 * 1024
    ahead = []

    async def counting() -> AsyncIterator[bytes]:
        taken = 0
        for _ in range(40 * MIB // chunk):
            ahead.append(taken - place.bytes_stored())
            yield bytes(chunk)
            taken += chunk

    upload = asyncio.run(place.ingest.receive(Chunks(counting()), None))
    assert upload.size == 40 * MIB
    assert max(ahead) <= BATCHES * BATCH_SIZE + chunk
    place.ingest.discard(upload)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_uploads_that_send_nothing_hold_no_memory(place: Workplace):
    async def many_that_wait() -> int:
        goes_on, waits = asyncio.Event(), asyncio.Semaphore(0)

        async def waiting() -> AsyncIterator[bytes]:
            waits.release()
            await goes_on.wait()
            yield b"x"

        before = resident()
        tasks = [asyncio.create_task(place.ingest.receive(Chunks(waiting()), 1)) for _ in range(32)]
        for _ in tasks:
            await waits.acquire()
        held = resident() - before
        goes_on.set()
        for task in tasks:
            place.ingest.discard(await task)
        return held

    assert asyncio.run(many_that_wait()) < 32 * BATCH_SIZE / 4


def test_a_full_disk_is_said_to_be_full_and_nothing_is_left(small_place: Workplace):
    with pytest.raises(StorageFull):
        asyncio.run(small_place.ingest.receive(Chunks(chunked(bytes(12 * MIB))), None))
    assert small_place.contents() == ({}, {})


def test_uploads_arrive_side_by_side(place: Workplace):
    async def all_of_them() -> None:
        bodies = [bytes([number]) * (BATCH_SIZE + number) for number in range(8)]
        uploads = await asyncio.gather(*(place.ingest.receive(Chunks(chunked(body)), len(body)) for body in bodies))
        for upload, body in zip(uploads, bodies, strict=True):
            assert upload.digest == digest_of(body)[0]
            place.ingest.discard(upload)

    asyncio.run(all_of_them())
    assert place.contents() == ({}, {})
