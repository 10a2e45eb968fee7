"""All digests and checksums of an upload, compared with the plain definition computed in one piece."""

import functools
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import DamagedBlob, HostileCheckpoint
from app.ingest.digest import digest_upload
from app.store import Spool, SpoolFile
from app.store.digests import digest_of
from app.values.digest import BLOCK_SIZE
from app.values.frame import frame_spans
from app.values.manifest import MIN_BLOB_SIZE, Manifest, Storage
from app.values.span import Span
from tests.support.measure import examples

SIZE = 2 * BLOCK_SIZE + 5_000_000


@functools.cache
def data() -> bytes:
    return np.random.default_rng(0).bytes(SIZE)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpoolFile]:
    spool = Spool(tmp_path_factory.mktemp("spool"))
    file = spool.create("upload")
    for call in file.put(data()):
        call.result()
    yield file
    file.discard()
    spool.close()


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def manifest_of(spans: list[Span]) -> Manifest:
    storages = tuple(Storage(str(number), "cpu", None, span) for number, span in enumerate(spans))
    return Manifest("torch_zip", SIZE, Span(0, 0), storages, (), ())


def bytes_at(span: Span) -> bytes:
    return data()[span.start : span.end]


sizes = st.one_of(
    st.integers(0, 3 * MIN_BLOB_SIZE),
    st.sampled_from([MIN_BLOB_SIZE, MIN_BLOB_SIZE + 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 2 * BLOCK_SIZE + 9]),
)
spans = st.tuples(st.integers(0, SIZE), sizes).map(lambda place: Span(place[0], min(place[0] + place[1], SIZE)))


@given(spans=st.lists(spans, max_size=8))
@example(spans=[])
@example(spans=[Span(0, SIZE)])
@example(spans=[Span(start, start + 5000) for start in range(0, 20_000_000, 5010)])
@example(spans=[Span(5, BLOCK_SIZE * 2), Span(5, BLOCK_SIZE * 2)])
@examples(30)
def test_every_storage_gets_the_digest_and_checksum_of_its_bytes(
    file: SpoolFile, threads: ThreadPoolExecutor, spans: list[Span]
):
    before = manifest_of(spans)
    digested = digest_upload(file, before, threads)
    found = {blob.digest: blob for blob in digested.storages}
    for storage, span in zip(digested.manifest.storages, spans, strict=True):
        data = bytes_at(span)
        assert storage.crc32 == zlib.crc32(data)
        assert (storage.key, storage.span) == (before.storages[int(storage.key)].key, span)
        if len(data) > MIN_BLOB_SIZE:
            digest, blocks = digest_of(data)
            assert storage.digest == digest
            assert (found[digest].blocks, found[digest].crc32) == (blocks, storage.crc32)
            assert b"".join(map(bytes_at, found[digest].spans)) == data
        else:
            assert storage.digest is None
    frame = b"".join(map(bytes_at, frame_spans(SIZE, before.storages)))
    assert (digested.frame.digest, digested.frame.blocks) == digest_of(frame)
    assert digested.frame.crc32 == zlib.crc32(frame)
    assert digested.frame.length == len(frame)
    assert digested.manifest.frame == digested.frame.digest


@pytest.mark.parametrize("size", [100, 5000, BLOCK_SIZE + 1])
def test_a_declared_checksum_has_to_be_right(file: SpoolFile, threads: ThreadPoolExecutor, size: int):
    manifest = manifest_of([Span(0, 10), Span(10, 10 + size)])
    right = zlib.crc32(data()[10 : 10 + size])

    def declaring(crc32: int) -> Manifest:
        return replace(manifest, storages=(manifest.storages[0], replace(manifest.storages[1], crc32=crc32)))

    assert digest_upload(file, declaring(right), threads).manifest.storages[1].crc32 == right
    assert digest_upload(file, declaring(0), threads).manifest.storages[1].crc32 == right
    with pytest.raises(HostileCheckpoint) as caught:
        digest_upload(file, declaring(right ^ 1), threads)
    assert (caught.value.rule, caught.value.where) == ("crc", "1")


def test_a_storage_beyond_the_end_of_the_file_is_an_error(file: SpoolFile, threads: ThreadPoolExecutor):
    with pytest.raises(DamagedBlob):
        digest_upload(file, manifest_of([Span(0, 5000), Span(SIZE - 10, SIZE + 1)]), threads)


def test_what_has_not_begun_when_a_part_fails_never_begins(file: SpoolFile):
    manifest = replace(manifest_of([Span(0, BLOCK_SIZE), Span(BLOCK_SIZE, 2 * BLOCK_SIZE)]), size=SIZE + 1)
    others_are_done = threading.Event()
    with ThreadPoolExecutor(1) as busy:
        others = busy.submit(others_are_done.wait, 60)
        with pytest.raises(DamagedBlob):  # the frame: it reaches beyond the end of the file
            digest_upload(file, manifest, busy)
        assert not others.done()
        others_are_done.set()
